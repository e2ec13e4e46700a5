"""What the progress display shows: one reading of a run."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.cli.batch.corpus import Corpus
    from bros_sglang.cli.batch.lane import Lane
    from bros_sglang.cli.batch.prefix_order import PrefixOrder
    from bros_sglang.cli.batch.tally import Tally

RATE_WINDOW_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ServerView:
    """One server's line."""

    name: str
    up: bool
    in_flight: int
    limit: int
    problem: str | None = None  # why it is away
    waiting: int | None = None  # its queue, where it tells
    rt_running: int | None = None  # of a bros server
    rt_attainment: float | None = None
    rt_tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One reading. Rates are over the last minute of this start."""

    elapsed_s: float
    total: int | None  # known, or estimated from the bytes read
    total_is_exact: bool
    ok: int
    failed: int
    rejected: int
    done_before: int  # by earlier starts
    in_flight: int
    waiting_retries: int
    retries: dict[str, int]
    requests_per_s: float
    prompt_tokens_per_s: float
    completion_tokens_per_s: float
    cached_share: float | None  # of this start's prompt tokens; None where the server does not say
    shared_before: float  # see PrefixOrder
    shared_after: float
    eta_s: float | None
    servers: tuple[ServerView, ...]

    @property
    def finished(self) -> int:
        """Requests and lines that have their record."""
        return self.ok + self.failed + self.rejected

    def to_json(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return asdict(self)


class _Sample(NamedTuple):
    time_s: float
    finished: int
    prompt: int
    completion: int


class Observer:
    """Takes snapshots; `read` is called about once a second with a steady clock's time."""

    def __init__(self, corpus: Corpus, order: PrefixOrder, tally: Tally, lanes: Sequence[Lane]) -> None:
        self._corpus, self._order, self._tally, self._lanes = corpus, order, tally, lanes
        self._samples: deque[_Sample] = deque()
        self._start_s: float | None = None

    def read(self, now_s: float, *, input_ended: bool, waiting_retries: int) -> Snapshot:
        """Take a reading."""
        tally, tokens = self._tally, self._tally.session_tokens
        if self._start_s is None:
            self._start_s = now_s
        self._samples.append(_Sample(now_s, tally.session_finished, tokens.prompt, tokens.completion))
        while len(self._samples) > 2 and now_s - self._samples[1].time_s >= RATE_WINDOW_S:
            self._samples.popleft()
        first, last = self._samples[0], self._samples[-1]
        span_s = last.time_s - first.time_s
        rates = [(b - a) / span_s if span_s else 0.0 for a, b in zip(first[1:], last[1:], strict=True)]
        total = self._total(input_ended=input_ended)
        eta_s = None
        if total is not None and rates[0] > 0:
            eta_s = max(0, total - tally.finished) / rates[0]
        return Snapshot(
            elapsed_s=now_s - self._start_s,
            total=total,
            total_is_exact=input_ended,
            ok=tally.all_ok,
            failed=tally.all_failed,
            rejected=tally.all_rejected,
            done_before=tally.before_ok + tally.before_failed + tally.before_rejected,
            in_flight=sum(lane.in_flight for lane in self._lanes),
            waiting_retries=waiting_retries,
            retries=dict(tally.retries),
            requests_per_s=rates[0],
            prompt_tokens_per_s=rates[1],
            completion_tokens_per_s=rates[2],
            cached_share=tokens.cached / max(1, tokens.prompt) if tokens.told_cached else None,
            shared_before=self._order.shared_before,
            shared_after=self._order.shared_after,
            eta_s=eta_s,
            servers=tuple(map(_view, self._lanes)),
        )

    def _total(self, *, input_ended: bool) -> int | None:
        records = self._corpus.records
        if input_ended:
            return records
        share = self._corpus.share
        return round(records / share) if share and records else None


def _view(lane: Lane) -> ServerView:
    status = lane.load.status if lane.load else None
    minute = status.rt.last_minute if status else None
    up = lane.up.is_set()
    return ServerView(
        name=lane.backend.name,
        up=up,
        in_flight=lane.in_flight,
        limit=lane.control.limit,
        problem=None if up else lane.last_problem,
        waiting=lane.load.waiting if lane.load else None,
        rt_running=status.rt.running if status else None,
        rt_attainment=minute.attainment if minute else None,
        rt_tokens_per_s=minute.output_tokens_per_s if minute else None,
    )
