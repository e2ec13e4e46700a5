"""The JSON of `GET /bros/status`: what a bros server says about itself.

One `BrosStatus` per server, one `SchedulerStatus` in it per data-parallel rank (one in all without data
parallelism; tensor-parallel ranks decide alike, so rank 0 of each group speaks for it). Counters (`*_total`)
only grow while the server lives, so two readings give a rate; fields of `LastMinute` cover the 60 seconds
before `time_s` and are None where nothing in that time can tell (a share of no requests is not 0 and not 1).

Readers: `bros top`, `bros batch run` (for queue depth and RT load), scripts. Unknown fields are ignored, so a
newer server can be read; `schema_version` grows when a field changes its meaning or goes away.

Seconds are `_s`, tokens `_tokens`, KV positions are token slots of the pool (0 … `pool_tokens`), not bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA_VERSION: Literal[1] = 1

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    """A part of the status: immutable, and tolerant of fields that a newer server adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Targets(_Part):
    """Default service level of a class, in milliseconds as users write them; None where it has none."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None


class PolicyConfig(_Part):
    """The settings in force now: what `/bros/config` changes and start-up set."""

    default_class: Literal["rt", "be"] = "rt"  # of a request that says nothing
    rt_targets: Targets = Targets()  # where the request itself names none
    be_floor_share: Share | None = None  # of step time kept for BE under RT pressure; None: no floor
    slack_margin_ms: float | None = None  # kept between the predicted pass and the tightest deadline
    max_queued_rt: Count | None = None  # at the door; None: no limit
    max_queued_be: Count | None = None
    other: dict[str, float | int | str | bool | None] = {}  # every further setting, by its own name


class LastMinute(_Part):
    """One class over the last 60 s."""

    arrived: Count = 0  # requests accepted
    finished: Count = 0  # requests answered in full
    failed: Count = 0  # aborted, refused at the door (429) or answered with an error
    prompt_tokens_per_s: float = 0.0  # computed or taken from cache
    output_tokens_per_s: float = 0.0
    cached_tokens_per_s: float = 0.0  # of the prompt tokens: taken from the prefix cache
    ttft_attainment: Share | None = None  # share of first tokens in time; None without targets or tokens
    tpot_attainment: Share | None = None  # share of requests whose tokens kept pace
    attainment: Share | None = None  # share of requests finished that met both
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    tpot_p50_s: float | None = None
    tpot_p99_s: float | None = None
    queue_p99_s: float | None = None  # arrival to first scheduled


class ClassKv(_Part):
    """KV slots of one class. A tree node that both classes use counts as RT."""

    running_tokens: Count = 0  # locked by requests that run or are parked
    cached_tokens: Count = 0  # in the radix tree, evictable


class ClassStatus(_Part):
    """One class on one scheduler, now."""

    running: Count = 0  # in the batch: prefilling or decoding this pass
    waiting: Count = 0  # queued, nothing computed for it in this turn
    parked: Count = 0  # decode rows that sit out passes with their KV kept (BE; RT stays 0)
    kv: ClassKv = ClassKv()
    last_minute: LastMinute = LastMinute()
    requests_total: Count = 0  # finished since the start
    prompt_tokens_total: Count = 0
    output_tokens_total: Count = 0
    cached_tokens_total: Count = 0
    oldest_waiting_s: float | None = None  # age of the oldest queued request; None: queue empty


class KvStatus(_Part):
    """The token pool of one scheduler, with both classes' frontiers.

    BE slots are taken from the low end, RT slots from the high end. `be_frontier` is one past the highest
    slot that BE holds, `rt_frontier` the lowest slot that RT holds; all slots between them are free (and
    freed ones may lie behind either). Without bidirectional allocation both are None.

    Invariant: used + cached + free of both classes adds up to `pool_tokens` (padding slot 0 excluded).
    """

    pool_tokens: Count
    free_tokens: Count
    page_size: Annotated[int, Field(ge=1)] = 1  # tokens
    be_frontier: Count | None = None
    rt_frontier: Count | None = None
    host_tokens: Count | None = None  # HiCache's host pool; None: off
    host_used_tokens: Count | None = None


class PreemptionStatus(_Part):
    """What RT took back from BE, since the start (`_total`) and in the last minute."""

    preempted_total: Count = 0  # BE requests stopped and queued again
    preempted_last_minute: Count = 0
    retracted_total: Count = 0  # decode rows retracted because the pool ran out
    chunk_yields_total: Count = 0  # BE prefills that gave up their chunk slot at a boundary
    parked_passes_total: Count = 0  # (row, pass) pairs that BE sat out
    recomputed_tokens_total: Count = 0  # of preempted requests, computed again on resume
    restored_tokens_total: Count = 0  # found again in the tree on resume: neither lost nor recomputed
    loaded_back_tokens_total: Count = 0  # came back from host memory


class SlackStatus(_Part):
    """How near the next RT deadline is. Negative: it is past."""

    tightest_s: float | None = None  # over running and waiting RT; None: no RT in the server
    tightest_rid: str | None = None  # request id
    lent_s_total: float = 0.0  # step time given to BE while RT was there


class StepTimeStatus(_Part):
    """The step-time model against the clock, over the last minute's passes."""

    passes: Count = 0
    mean_abs_error: float | None = None  # of (predicted − actual) / actual
    bias: float | None = None  # mean of the same, signed: positive predicts too long
    p99_abs_error: float | None = None
    last_predicted_s: float | None = None
    last_actual_s: float | None = None
    late_launches_total: Count = 0  # steps planned late, with all that had arrived
    late_launches_missed_total: Count = 0  # of these, planned so late that the device had to wait
    source: str | None = None  # where the coefficients come from: "online", a profile's name, …


class SchedulerStatus(_Part):
    """One scheduler (one data-parallel rank)."""

    dp_rank: Count = 0
    rt: ClassStatus = ClassStatus()
    be: ClassStatus = ClassStatus()
    kv: KvStatus
    slack: SlackStatus = SlackStatus()
    preemptions: PreemptionStatus = PreemptionStatus()
    step_time: StepTimeStatus = StepTimeStatus()
    batch_cap: Count | None = None  # adaptive batch size now, in requests; None: no cap
    passes_total: Count = 0


class BrosStatus(_Part):
    """The whole answer of `GET /bros/status`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    bros_version: str
    sglang_version: str | None = None
    policy: str  # "bros" where the policy is on; any other name: the plugin changes nothing
    model: str | None = None  # served model name
    time_s: float  # Unix time of the reading
    uptime_s: float = 0.0
    config: PolicyConfig = PolicyConfig()
    schedulers: list[SchedulerStatus] = Field(min_length=1)

    @property
    def rt(self) -> ClassStatus:
        """RT over all schedulers."""
        return sum_classes(scheduler.rt for scheduler in self.schedulers)

    @property
    def be(self) -> ClassStatus:
        """BE over all schedulers."""
        return sum_classes(scheduler.be for scheduler in self.schedulers)

    @property
    def tightest_slack_s(self) -> float | None:
        """Return the tightest slack over all schedulers; None with no RT anywhere."""
        known = [s.slack.tightest_s for s in self.schedulers if s.slack.tightest_s is not None]
        return min(known, default=None)

    @property
    def preemptions(self) -> PreemptionStatus:
        """Preemptions over all schedulers."""
        parts = [scheduler.preemptions for scheduler in self.schedulers]
        return PreemptionStatus(
            **{name: sum(getattr(part, name) for part in parts) for name in PreemptionStatus.model_fields}
        )


def sum_classes(parts: Iterable[ClassStatus]) -> ClassStatus:
    """Add one class up over schedulers.

    Counts and rates add; shares are weighted by the requests behind them; a percentile over several
    schedulers cannot be had from their percentiles, so the worst one is shown.
    """
    classes = list(parts)
    if len(classes) == 1:
        return classes[0]
    ages = [c.oldest_waiting_s for c in classes if c.oldest_waiting_s is not None]
    counts = ("running", "waiting", "parked", "requests_total", "prompt_tokens_total", "output_tokens_total")
    return ClassStatus(
        **{name: sum(getattr(c, name) for c in classes) for name in (*counts, "cached_tokens_total")},
        kv=ClassKv(
            running_tokens=sum(c.kv.running_tokens for c in classes),
            cached_tokens=sum(c.kv.cached_tokens for c in classes),
        ),
        last_minute=_sum_minutes([c.last_minute for c in classes]),
        oldest_waiting_s=max(ages, default=None),
    )


def _sum_minutes(minutes: list[LastMinute]) -> LastMinute:
    added = (
        "arrived",
        "finished",
        "failed",
        "prompt_tokens_per_s",
        "output_tokens_per_s",
        "cached_tokens_per_s",
    )
    shares = ("ttft_attainment", "tpot_attainment", "attainment")
    worst = ("ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s", "queue_p99_s")
    values: dict[str, float | int | None] = {name: sum(getattr(m, name) for m in minutes) for name in added}
    for name in shares:
        values[name] = _weighted([(getattr(m, name), m.finished) for m in minutes])
    for name in worst:
        values[name] = max((getattr(m, name) for m in minutes if getattr(m, name) is not None), default=None)
    return LastMinute.model_validate(values)


def _weighted(parts: list[tuple[float | None, int]]) -> float | None:
    known = [(share, weight) for share, weight in parts if share is not None]
    total = sum(weight for _, weight in known)
    if total == 0:
        return known[0][0] if known else None
    return sum(share * weight for share, weight in known) / total
