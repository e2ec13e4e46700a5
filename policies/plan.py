"""What one step takes: real-time first, then as much best-effort work as there is time for.

`plan_step` looks at numbers alone and says how many prefill tokens of each class the step may compute, how
many best-effort decode rows ride along, and why it stops where it stops (BROS, sections 4.1 and 4.3). The
model is solved for the counts; nothing is tried row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from bros_sglang.policies.slack import PendingPrefill, waiting_slack
from bros_sglang.policies.step_time import Coefficients, StepShape, StepTimeModel, pairs

_REFILL_PACE: Final = 0.8  # of the TPOT target
# Real-time steps may take so many times what they take without best-effort work, however tight the targets:
# nothing is won by holding best-effort work back for a target that real-time work alone would miss.
ATTAINABLE_PACES: Final = 2.0
# While nothing binds but arrivals that may come, a step may take so many times what its decode rows take: a
# short guard would leave no time for best-effort prefill otherwise, and rows would end without successors.
_ROWS_AND_PREFILL: Final = 1.5


class Bound(StrEnum):
    """What limited the best-effort share of a step."""

    NO_RT = "no real-time request about: the engine's own limits"
    CHUNK = "the chunk size of the engine"
    TTFT = "the tightest first-token deadline"
    TPOT = "the tightest next-token deadline"
    ARRIVALS = "time kept free for a real-time request that may arrive"
    OVERLOAD = "a real-time deadline is lost already: real-time work first"
    FLOOR = "the best-effort floor share"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine and the configuration allow in a step."""

    chunk_tokens: int  # prefill tokens of a step at most (the engine's chunked_prefill_size)
    arrival_guard_s: float  # longest step while no real-time request is about
    margin_bands: float = 2.0  # predicted times are raised by this many mean relative errors
    fixed_margin_s: float = 0.001
    decode_lead_s: float = 0.0  # how far ahead of their deadlines running real-time rows are kept
    min_be_chunk_tokens: int = 32  # a smaller best-effort chunk is not worth its place in the batch
    sizing: Literal["slack", "aimd", "fixed"] = "slack"
    row_cap: int = 1 << 30  # requests in a step at most, with sizing "aimd"
    min_rt_chunk_tokens: int = 64  # real-time prefill moves at least so much, however late the decodes


@dataclass(frozen=True, slots=True)
class RtPrefill:
    """A real-time request that waits for prefill or is mid-prefill."""

    due_s: float  # of its first token
    tokens: int  # still to compute
    prefix_tokens: int  # cached


@dataclass(frozen=True, slots=True)
class View:
    """The state that a step is planned on. Times in seconds, on the agreed clock."""

    start_s: float  # when the step can begin: now, or the predicted end of the one in flight
    rt_prefills: Sequence[RtPrefill]  # earliest due first
    rt_rows: int
    rt_context: int  # tokens
    rt_next_due_s: float  # tightest due time of a token that a running real-time row makes next; +inf if none
    rt_tightest_tpot_s: float  # of the running real-time rows; +inf if none
    be_rows: int
    be_context: int  # tokens
    be_prefill_tokens: int  # waiting best-effort prefill in sight, mid-prefill included
    be_prefix_tokens: int = 0  # cached prefix of the first of them
    rt_latest_s: float = float("inf")  # up to then, late running real-time rows would still catch up
    be_owed_s: float = 0.0  # engine time that the floor share owes to best-effort work


@dataclass(frozen=True, slots=True)
class Plan:
    """What the step may take."""

    rt_prefill_tokens: int
    be_prefill_tokens: int  # at most, after `rt_prefill_tokens` real-time ones
    be_rows: int  # best-effort decode rows that ride along; the rest are parked for the step
    time_limit_s: float  # what the whole step may take
    lendable_s: float  # time to spare before the tightest deadline, real-time part paid; may be negative
    predicted_s: float  # of the planned step
    bound: Bound
    lost: tuple[int, ...]  # positions in `rt_prefills` that are given up: they cannot all be on time
    rt_pace_s: float = 0.0  # predicted step of the running real-time rows alone
    first_token_slack_s: float = 0.0  # of the waiting real-time requests, all being served from now on

    @property
    def has_prefill(self) -> bool:
        """Whether the step may compute prefill tokens at all."""
        return self.rt_prefill_tokens > 0 or self.be_prefill_tokens > 0


def _margin(model: StepTimeModel, limits: Limits) -> float:
    return 1.0 + min(limits.margin_bands * model.band(decode_only=False), 0.5)


def _unsized(
    view: View,
    model: StepTimeModel,
    limits: Limits,
    rt_tokens: int,
    time_limit_s: float,
    lendable_s: float,
    lost: tuple[int, ...],
) -> Plan:
    """Fill a step up to the chunk, or to a number of requests, whatever the deadlines: for comparison."""
    rows_left = max(0, limits.row_cap - view.rt_rows - len(view.rt_prefills))
    be_rows = min(view.be_rows, rows_left)
    be_tokens = min(view.be_prefill_tokens, limits.chunk_tokens - rt_tokens) if rows_left > be_rows else 0
    shape = StepShape(rt_tokens + be_tokens, 0.0, view.rt_rows + be_rows, view.rt_context + view.be_context)
    predicted_s = model.predict(shape)
    return Plan(rt_tokens, be_tokens, be_rows, time_limit_s, lendable_s, predicted_s, Bound.CHUNK, lost)


def _rt_prefill_s(view: View, decode_limit_s: float, *, some_kept: bool) -> float:
    """Return how long a step with real-time prefill may last for the sake of the running rows."""
    # A running row that is late already stays exactly as late if the step takes one TPOT.
    seconds = max(decode_limit_s, view.rt_tightest_tpot_s if view.rt_rows else 0.0)
    if some_kept:
        # A first token that is late stays late; a decode row that waits for it can still catch up.
        seconds = max(seconds, view.rt_latest_s - view.start_s)
    return seconds


def _rt_prefill_tokens(view: View, cost: Coefficients, limits: Limits, seconds: float) -> int:
    """Return how much of the waiting real-time prefill a step takes that may last so long for it."""
    waiting = sum(item.tokens for item in view.rt_prefills)
    fitting = cost.prefill_tokens_within(seconds, view.rt_prefills[0].prefix_tokens)
    return min(waiting, limits.chunk_tokens, max(fitting, limits.min_rt_chunk_tokens))


def _arrivals_limit_s(
    view: View, mixed: Coefficients, limits: Limits, margin: float, rt_rows_s: float
) -> float:
    """Return how long a step may take that delays nobody but real-time requests yet to arrive."""
    rows = StepShape(
        decode_rows=view.rt_rows + view.be_rows, decode_context=view.rt_context + view.be_context
    )
    limit_s = max(limits.arrival_guard_s, _ROWS_AND_PREFILL * margin * mixed.predict(rows))
    if view.rt_prefills or view.rt_rows:
        limit_s = max(limit_s, ATTAINABLE_PACES * margin * rt_rows_s)
    return limit_s


def plan_step(view: View, model: StepTimeModel, limits: Limits) -> Plan:
    """Plan one step.

    The step may last until the tightest token that it delays is due: the next token of every running
    real-time row, and the first tokens of those that wait, each after the prefill work before it. The
    real-time part is taken first; what remains of the limit is lent to best-effort decode rows and then to
    best-effort prefill.
    """
    mixed = model.coefficients(decode_only=False)
    margin = _margin(model, limits)
    rt_about = bool(view.rt_prefills) or view.rt_rows > 0

    # Real-time work of the step: every decode row, and prefill in the order given.
    rt_rows_s = mixed.predict(StepShape(decode_rows=view.rt_rows, decode_context=view.rt_context))
    base_s = rt_rows_s * margin
    pending = [
        PendingPrefill(item.due_s, mixed.prefill_s(item.prefix_tokens, item.tokens))
        for item in view.rt_prefills
    ]
    waiting = waiting_slack(pending, view.start_s + base_s + limits.fixed_margin_s, margin)
    decode_limit_s = view.rt_next_due_s - view.start_s - limits.fixed_margin_s

    rt_tokens = 0
    if pending:
        allowed_s = _rt_prefill_s(view, decode_limit_s, some_kept=len(waiting.lost) < len(pending)) - base_s
        rt_tokens = _rt_prefill_tokens(view, mixed, limits, allowed_s / margin)
    rt_part_s = base_s
    if rt_tokens:
        rt_part_s += margin * mixed.prefill_s(view.rt_prefills[0].prefix_tokens, rt_tokens)

    # What may be lent: the whole step has to end before any deadline that it delays.
    bound = Bound.NO_RT
    time_limit_s = _arrivals_limit_s(view, mixed, limits, margin, rt_rows_s)
    if rt_about:
        bound = Bound.ARRIVALS
        ttft_limit_s = rt_part_s + waiting.tightest_s
        if ttft_limit_s < time_limit_s:
            time_limit_s, bound = ttft_limit_s, Bound.TTFT
        # The running rows' lead is kept for real-time prefill that may arrive: it delays them, too. What they
        # are ahead beyond that is lent; while the lead is short, steps stay below their pace and it grows.
        lent_limit_s = max(
            decode_limit_s - limits.decode_lead_s, min(decode_limit_s, _REFILL_PACE * view.rt_tightest_tpot_s)
        )
        if view.rt_rows and lent_limit_s < time_limit_s:
            time_limit_s, bound = lent_limit_s, Bound.TPOT
        if waiting.lost:
            time_limit_s, bound = min(time_limit_s, rt_part_s), Bound.OVERLOAD
    lendable_s = time_limit_s - rt_part_s
    if rt_about and view.be_owed_s > 0.0 and lendable_s < view.be_owed_s:
        lendable_s, bound = view.be_owed_s, Bound.FLOOR

    if limits.sizing != "slack":
        return _unsized(view, model, limits, rt_tokens, time_limit_s, lendable_s, waiting.lost)

    # Best-effort decode rows, all or as many as fit.
    be_rows, be_rows_s = view.be_rows, 0.0
    if view.be_rows:
        context = view.be_context / view.be_rows
        be_rows_s = margin * mixed.predict(
            StepShape(decode_rows=view.be_rows, decode_context=view.be_context)
        )
        be_rows_s -= margin * mixed.fixed_s
        if rt_about and be_rows_s > lendable_s:
            be_rows = min(view.be_rows, mixed.decode_rows_within(max(lendable_s, 0.0) / margin, context))
            be_rows_s *= be_rows / view.be_rows

    # Best-effort prefill with what is left.
    be_tokens = 0
    room = limits.chunk_tokens - rt_tokens
    if view.be_prefill_tokens and room > 0:
        fitting = mixed.prefill_tokens_within((lendable_s - be_rows_s) / margin, view.be_prefix_tokens)
        wanted = min(room, view.be_prefill_tokens)
        be_tokens = min(wanted, fitting)
        if be_tokens < min(limits.min_be_chunk_tokens, view.be_prefill_tokens):
            be_tokens = 0
            if not rt_about and not view.be_rows:
                # However short the steps that arrivals ask for: in an idle engine somebody has to move.
                be_tokens = min(wanted, max(limits.min_be_chunk_tokens, limits.min_rt_chunk_tokens))
        elif be_tokens == room and room < view.be_prefill_tokens:
            bound = Bound.CHUNK
    predicted = StepShape(
        rt_tokens + be_tokens,
        pairs(view.be_prefix_tokens, be_tokens)
        + (pairs(view.rt_prefills[0].prefix_tokens, rt_tokens) if rt_tokens else 0.0),
        view.rt_rows + be_rows,
        view.rt_context + (view.be_context * be_rows // view.be_rows if view.be_rows else 0),
    )
    return Plan(
        rt_prefill_tokens=rt_tokens,
        be_prefill_tokens=be_tokens,
        be_rows=be_rows,
        time_limit_s=time_limit_s,
        lendable_s=lendable_s,
        predicted_s=model.predict(predicted),
        bound=bound,
        lost=waiting.lost,
        rt_pace_s=rt_rows_s if view.rt_rows else 0.0,
        first_token_slack_s=0.0 if waiting.lost else waiting.tightest_s,
    )
