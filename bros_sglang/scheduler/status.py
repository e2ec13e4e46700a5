"""This scheduler's part of `GET /bros/status`, put together when somebody asks."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sglang.srt.runtime_context import get_parallel

from bros_sglang import seams
from bros_sglang.memory.pool_use import PoolUse, pool_use
from bros_sglang.policies.slack import next_token_due
from bros_sglang.scheduler.books import Books, ClassBooks, ClassTotals, PassTotals
from bros_sglang.scheduler.frontiers import FrontierReader
from bros_sglang.scheduler.last_minute import WINDOW_S, percentile
from bros_sglang.status import (
    ClassKv,
    ClassStatus,
    KvStatus,
    LastMinute,
    PreemptionStatus,
    SchedulerStatus,
    SlackStatus,
    StepTimeStatus,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bros_sglang.memory.two_ended_free_list import Frontiers
    from bros_sglang.scheduler.scheduler import BrosScheduler

_LOOKED_AT: Final = 1000  # waiting requests among which the oldest is sought


class ClassLoad(NamedTuple):
    """One class now."""

    running: int
    waiting: int
    parked: int
    kv: ClassKv


class Load(NamedTuple):
    """What is in the scheduler now; host numbers alone."""

    rt: ClassLoad
    be: ClassLoad
    free_tokens: int
    pool_tokens: int
    running: list[Any]  # requests


class StatusReporter:
    """Answers with a SchedulerStatus. Host numbers, except for the frontiers of the pool."""

    def __init__(self, scheduler: BrosScheduler, books: Books, started_s: float) -> None:
        self._scheduler = scheduler
        self._books = books
        self._started_s = started_s
        self._frontiers: FrontierReader | None = None

    def load(self) -> Load:
        """Count requests and KV; O(running requests)."""
        scheduler = self._scheduler
        owners = scheduler.invariant_checker._requests_owning_rows()
        parked = scheduler.parked.reqs if scheduler.parked is not None else []
        use = pool_use(scheduler.token_to_kv_pool_allocator, scheduler.tree_cache, owners)
        rt_kv, be_kv = class_kv(use, int(scheduler.tree_cache.evictable_size()))
        away = {id(req) for req in parked}
        running = [req for req in owners if id(req) not in away and not req.finished()]
        rt_running = sum(req.bros.is_rt for req in running)
        queue = scheduler.waiting_queue
        return Load(
            rt=ClassLoad(rt_running, len(queue.rt), 0, rt_kv),
            be=ClassLoad(len(running) - rt_running, len(queue.be), len(parked), be_kv),
            free_tokens=use.free,
            pool_tokens=use.total,
            running=running,
        )

    def answer(self, rid: str | None, now_s: float) -> dict[str, Any] | None:
        """Answer a question that the HTTP server marked as bros's; None if it is not."""
        if rid == seams.QUEUED_RID:
            queue = self._scheduler.waiting_queue
            return {"rt": len(queue.rt), "be": len(queue.be)}
        return self.status(now_s).model_dump(mode="json") if rid == seams.STATUS_RID else None

    def status(self, now_s: float) -> SchedulerStatus:
        """Put the status together; `now_s` on this process's monotonic clock."""
        scheduler = self._scheduler
        load = self.load()
        queue = scheduler.waiting_queue
        return SchedulerStatus(
            dp_rank=get_parallel().dp_rank or 0,
            rt=self._class(self._books.rt, load.rt, queue.rt, now_s),
            be=self._class(self._books.be, load.be, queue.be, now_s),
            kv=self._kv(load, now_s),
            slack=self._slack(load.running, now_s),
            preemptions=self._preemptions(now_s),
            step_time=self._step_time(now_s),
            batch_cap=scheduler.limits.row_cap if scheduler.limits.sizing == "aimd" else None,
            passes_total=self._books.passes.passes,
        )

    def _class(self, books: ClassBooks, load: ClassLoad, waiting: Any, now_s: float) -> ClassStatus:
        totals = books.totals
        oldest_s = min((req.bros.arrival_s for req in islice(waiting, _LOOKED_AT)), default=None)
        return ClassStatus(
            running=load.running,
            waiting=load.waiting,
            parked=load.parked,
            kv=load.kv,
            last_minute=last_minute(books, now_s, min(WINDOW_S, max(1.0, now_s - self._started_s))),
            requests_total=totals.finished,
            prompt_tokens_total=totals.prompt_tokens,
            output_tokens_total=totals.output_tokens,
            cached_tokens_total=totals.cached_tokens,
            oldest_waiting_s=None if oldest_s is None else max(0.0, now_s - oldest_s),
        )

    def _kv(self, load: Load, now_s: float) -> KvStatus:
        scheduler = self._scheduler
        allocator = scheduler.token_to_kv_pool_allocator
        page = int(allocator.page_size)
        # On a CPU the exact ends cost no wait.
        exact = allocator.frontiers() if scheduler.device == "cpu" else None
        rt_frontier, be_frontier = self.frontier_tokens(now_s, exact) or (None, None)
        return KvStatus(
            pool_tokens=load.pool_tokens,
            free_tokens=load.free_tokens,
            page_size=page,
            be_frontier=be_frontier,
            rt_frontier=rt_frontier,
        )

    def frontier_tokens(self, now_s: float, ends: Frontiers | None = None) -> tuple[int, int] | None:
        """Return real-time's and best-effort's end of the pool, token slots; None before the first reading.

        Without `ends` they are some seconds old, and reading them waits for nothing.
        """
        allocator = self._scheduler.token_to_kv_pool_allocator
        if ends is None:
            if self._frontiers is None:
                self._frontiers = FrontierReader(allocator)
            ends = self._frontiers.latest(now_s)
        page = int(allocator.page_size)
        return None if ends is None else ((ends.rt_frontier - 1) * page, ends.be_frontier * page)

    def targets_s(self) -> tuple[float, float]:
        """Return the TTFT and TPOT targets of real-time requests that name none, seconds."""
        settings = self._scheduler.bros_settings
        return settings.ttft_ms / 1e3, settings.tpot_ms / 1e3

    def held_tokens(self) -> int:
        """Return the KV tokens that preempted requests keep and would give up for real-time ones."""
        return int(self._scheduler.tree_cache.held.ledger.held_tokens)

    def _slack(self, running: Iterable[Any], now_s: float) -> SlackStatus:
        tightest_s, tightest_rid = None, None
        for req in [*running, *islice(self._scheduler.waiting_queue.rt, _LOOKED_AT)]:
            state = req.bros
            if not state.is_rt:
                continue
            slack_s = (
                next_token_due(
                    arrival_s=state.arrival_s,
                    first_token_s=state.first_token_s,
                    tokens_out=len(req.output_ids),
                    slo=state.slo,
                    base=self._scheduler.bros_settings.deadline_base,
                )
                - now_s
            )
            if tightest_s is None or slack_s < tightest_s:
                tightest_s, tightest_rid = slack_s, req.rid
        return SlackStatus(
            tightest_s=tightest_s, tightest_rid=tightest_rid, lent_s_total=self._books.passes.lent_s
        )

    def _preemptions(self, now_s: float) -> PreemptionStatus:
        totals = self._books.passes
        minute = PassTotals(*self._books.minute.over_last_minute(now_s))  # type: ignore[arg-type]
        return PreemptionStatus(
            preempted_total=totals.preempted,
            preempted_last_minute=minute.preempted,
            retracted_total=totals.retracted,
            chunk_yields_total=totals.chunk_yields,
            parked_passes_total=totals.parked_passes,
            recomputed_tokens_total=totals.recomputed_tokens,
            restored_tokens_total=totals.restored_tokens,
            loaded_back_tokens_total=totals.loaded_back_tokens,
        )

    def _step_time(self, now_s: float) -> StepTimeStatus:
        errors = self._books.step_error.values(now_s)
        meter = self._scheduler.meter
        source = self._scheduler.bros_settings.step_time_file
        passes = PassTotals(*self._books.minute.over_last_minute(now_s)).passes  # type: ignore[arg-type]
        sizes = [abs(error) for error in errors]
        return StepTimeStatus(
            passes=passes,
            mean_abs_error=sum(sizes) / len(sizes) if sizes else None,
            bias=sum(errors) / len(errors) if errors else None,
            p99_abs_error=percentile(sizes, 0.99),
            last_predicted_s=meter.last_predicted_s or None,
            last_actual_s=meter.last_actual_s or None,
            late_launches_total=self._books.passes.late_launches,
            late_launches_missed_total=self._books.passes.late_launches_missed,
            source="online" if source is None else source.name,
        )


def class_kv(use: PoolUse, evictable_tokens: int) -> tuple[ClassKv, ClassKv]:
    """Return RT's and BE's KV: locked (of running, parked and preempted requests) and evictable.

    With the free tokens they add up to the pool.
    """
    be_evictable = min(use.be_evictable, use.be_cached)
    rt_evictable = min(max(0, evictable_tokens - be_evictable), use.rt_cached)
    return (
        ClassKv(running_tokens=use.rt_running + use.rt_cached - rt_evictable, cached_tokens=rt_evictable),
        ClassKv(running_tokens=use.be_running + use.be_cached - be_evictable, cached_tokens=be_evictable),
    )


def last_minute(books: ClassBooks, now_s: float, seconds: float) -> LastMinute:
    """Return one class's last minute; rates are over `seconds`. Best-effort has no targets to attain."""
    minute = ClassTotals(*books.minute.over_last_minute(now_s))  # type: ignore[arg-type]
    ttft_s, tpot_s = books.ttft_s.values(now_s), books.tpot_s.values(now_s)
    promised = books.name == "rt"
    return LastMinute(
        arrived=minute.arrived,
        finished=minute.finished,
        failed=minute.failed,
        prompt_tokens_per_s=minute.prompt_tokens / seconds,
        output_tokens_per_s=minute.output_tokens / seconds,
        cached_tokens_per_s=minute.cached_tokens / seconds,
        ttft_attainment=_share(minute.ttft_met, minute.ttft_told) if promised else None,
        tpot_attainment=_share(minute.tpot_met, minute.tpot_told) if promised else None,
        attainment=_share(minute.met, minute.finished) if promised else None,
        ttft_p50_s=percentile(ttft_s, 0.5),
        ttft_p99_s=percentile(ttft_s, 0.99),
        tpot_p50_s=percentile(tpot_s, 0.5),
        tpot_p99_s=percentile(tpot_s, 0.99),
        queue_p99_s=percentile(books.queue_s.values(now_s), 0.99),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
