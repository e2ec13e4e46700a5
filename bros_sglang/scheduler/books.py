"""What the scheduler counts about classes: plain additions per pass, per first token and per request.

Read by `status.py` (`/bros/status`) and `metrics.py` (`/metrics`). Nothing decides by it, so its times come
from this process's own clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol

from sglang.srt.constants import HEALTH_CHECK_RID_PREFIX

from bros_sglang.scheduler.last_minute import MinuteSamples, MinuteSums

if TYPE_CHECKING:
    from bros_sglang.policies.decision import Decision
    from bros_sglang.policies.step_time import Coefficients, StepShape


@dataclass(slots=True)
class Report:
    """What was counted of one request so far (`ReqState.report`)."""

    output_tokens: int = 0
    first_token_s: float | None = None
    ended: bool = False
    computed_tokens: int = 0  # had KV when it was last preempted; 0 once that is settled


@dataclass(slots=True)
class ClassTotals:
    """One class since the start."""

    arrived: int = 0
    finished: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    ttft_told: int = 0  # first tokens
    ttft_met: int = 0
    tpot_told: int = 0  # finished requests with a second token
    tpot_met: int = 0
    met: int = 0  # finished requests that met both


@dataclass(slots=True)
class PassTotals:
    """All classes since the start."""

    passes: int = 0
    late_launches: int = 0
    late_launches_missed: int = 0
    preempted: int = 0
    retracted: int = 0
    chunk_yields: int = 0
    parked_passes: int = 0
    recomputed_tokens: int = 0
    restored_tokens: int = 0
    loaded_back_tokens: int = 0
    lent_s: float = 0.0
    steps_measured: int = 0
    predicted_s: float = 0.0
    actual_s: float = 0.0
    abs_error_s: float = 0.0


class Observer(Protocol):
    """Takes single values as they come (histograms)."""

    def first_token(self, request_class: str, ttft_s: float, queue_s: float | None) -> None:
        """Take the time to a first token and the part of it spent waiting."""

    def finished(self, request_class: str, tpot_s: float | None) -> None:
        """Take the mean time per output token of a request that ended."""


_CLASS_FIELDS: Final = attrgetter(*ClassTotals.__slots__)
_PASS_FIELDS: Final = attrgetter(*PassTotals.__slots__)


class ClassBooks:
    """One class: totals, their last minute, and samples of the last minute."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.totals = ClassTotals()
        self.minute = MinuteSums(lambda: _CLASS_FIELDS(self.totals))
        self.ttft_s = MinuteSamples()
        self.tpot_s = MinuteSamples()
        self.queue_s = MinuteSamples()


class Books:
    """Everything that is counted on one scheduler. `now_s` is this process's monotonic clock, seconds."""

    def __init__(self, target_share: float) -> None:
        self.rt = ClassBooks("rt")
        self.be = ClassBooks("be")
        self.passes = PassTotals()
        self.minute = MinuteSums(lambda: _PASS_FIELDS(self.passes))
        self.step_error = MinuteSamples()  # (predicted - actual) / actual
        self.observer: Observer | None = None
        # Scheduling aims at this share of a target; what was promised is the target itself.
        self._slack = 1.0 / target_share

    def of(self, state: Any) -> ClassBooks:
        """Return the books of a request's class."""
        return self.rt if state.is_rt else self.be

    def note(self, now_s: float) -> None:
        """Start a new second of the windows if it is time."""
        self.minute.note(now_s)
        self.rt.minute.note(now_s)
        self.be.minute.note(now_s)

    # -- requests

    def arrived(self, req: Any, now_s: float) -> None:
        """Count a request that came in; SGLang's own health checks are nobody's requests."""
        self.note(now_s)
        report = req.bros.report
        if req.rid.startswith(HEALTH_CHECK_RID_PREFIX):
            report.ended, report.first_token_s = True, now_s
            return
        self.of(req.bros).totals.arrived += 1

    def aborted_waiting(self, req: Any, now_s: float) -> None:
        """Count a request that was aborted while it waited."""
        state = getattr(req, "bros", None)
        if state is not None and not state.report.ended:
            self.note(now_s)
            state.report.ended = True
            self.of(state).totals.failed += 1

    def after_step(self, reqs: list[Any], now_s: float) -> None:
        """Count the tokens that a step made, first tokens, and requests that it ended."""
        self.note(now_s)
        self.passes.passes += 1
        rt_tokens = be_tokens = 0
        for req in reqs:
            state = req.bros
            report = state.report
            new = len(req.output_ids) - report.output_tokens
            if new > 0:
                report.output_tokens += new
                if state.is_rt:
                    rt_tokens += new
                else:
                    be_tokens += new
                if report.first_token_s is None:
                    self._first_token(req, now_s)
            if req.finished_reason is not None and not report.ended:
                self._ended(req, now_s)
        self.rt.totals.output_tokens += rt_tokens
        self.be.totals.output_tokens += be_tokens

    def _first_token(self, req: Any, now_s: float) -> None:
        state = req.bros
        state.report.first_token_s = now_s
        books = self.of(state)
        totals = books.totals
        ttft_s = now_s - state.arrival_s
        totals.prompt_tokens += len(req.origin_input_ids)
        totals.cached_tokens += min(req.cached_tokens, len(req.origin_input_ids))
        totals.ttft_told += 1
        totals.ttft_met += ttft_s <= state.slo.ttft_s * self._slack
        books.ttft_s.add(now_s, ttft_s)
        started_s = req.time_stats.forward_entry_time
        queue_s = max(0.0, started_s - state.arrival_s) if started_s else None
        if queue_s is not None:
            books.queue_s.add(now_s, queue_s)
        if self.observer is not None:
            self.observer.first_token(books.name, ttft_s, queue_s)

    def _ended(self, req: Any, now_s: float) -> None:
        state = req.bros
        report = state.report
        report.ended = True
        books = self.of(state)
        totals = books.totals
        if report.first_token_s is None or req.finished_reason.to_json().get("type") == "abort":
            totals.failed += 1
            return
        totals.finished += 1
        ttft_met = report.first_token_s - state.arrival_s <= state.slo.ttft_s * self._slack
        tpot_s = None
        tpot_met = True
        if report.output_tokens > 1:
            tpot_s = (now_s - report.first_token_s) / (report.output_tokens - 1)
            tpot_met = tpot_s <= state.slo.tpot_s * self._slack
            totals.tpot_told += 1
            totals.tpot_met += tpot_met
            books.tpot_s.add(now_s, tpot_s)
        totals.met += ttft_met and tpot_met
        if self.observer is not None:
            self.observer.finished(books.name, tpot_s)

    # -- giving way

    def preempted(self, req: Any, *, mid_prefill: bool) -> None:
        """Count a preemption, or a prefill that gives up its chunk slot; the request still holds its KV."""
        if mid_prefill:
            self.passes.chunk_yields += 1
        else:
            self.passes.preempted += 1
        req.bros.report.computed_tokens = req.kv.kv_committed_len

    def launched(self, decision: Decision, batch: Any, shape: StepShape, cost: Coefficients) -> None:
        """Count what a step computes again, and estimate the time that it lends to best-effort work.

        Lent is what the best-effort part adds to a step that real-time requests are in or wait for, by the
        step-time model; the context of decode rows is shared out by their number.
        """
        self.passes.loaded_back_tokens += shape.load_back_tokens
        be_rows = 0
        if shape.decode_rows:
            reqs = batch.decoding_reqs if shape.prefill_tokens else batch.reqs
            be_rows = sum(not req.bros.is_rt for req in reqs)
        if decision.rt_rows or decision.rt_waiting or decision.rt_prefilled:
            rows_share = be_rows / shape.decode_rows if be_rows else 0.0
            tokens_share = decision.be_prefilled / shape.prefill_tokens if decision.be_prefilled else 0.0
            decision.lent_s = rows_share * (
                cost.per_decode_row_s * shape.decode_rows + cost.per_context_token_s * shape.decode_context
            ) + tokens_share * (
                cost.per_prefill_token_s * shape.prefill_tokens
                + cost.per_prefill_pair_s * shape.prefill_pairs
            )
        if not shape.prefill_tokens:
            return
        prefills = len(batch.reqs) - shape.decode_rows
        for index in range(prefills):
            report = batch.reqs[index].bros.report
            if report.computed_tokens:
                self._resumed(report, batch.prefix_lens[index])

    def _resumed(self, report: Report, prefix: int) -> None:
        """Count how much of a preempted request's KV was found again, and how much is computed again."""
        # Chunks to come are counted now.
        self.passes.restored_tokens += min(prefix, report.computed_tokens)
        self.passes.recomputed_tokens += max(0, report.computed_tokens - prefix)
        report.computed_tokens = 0

    def step_measured(self, decision: Decision | None, actual_s: float, now_s: float) -> None:
        """Compare a step with its prediction."""
        if decision is None or actual_s <= 0.0:
            return
        totals = self.passes
        predicted_s = decision.predicted_s
        totals.steps_measured += 1
        totals.predicted_s += predicted_s
        totals.actual_s += actual_s
        totals.abs_error_s += abs(predicted_s - actual_s)
        if decision.lent_s and predicted_s > 0.0:
            totals.lent_s += min(decision.lent_s / predicted_s, 1.0) * actual_s
        self.step_error.add(now_s, (predicted_s - actual_s) / actual_s)
