"""The share of RT requests that met their targets.

A request is within when its TTFT is at most its TTFT target and the mean of its times per output token is
at most its TPOT target (DistServe, Sarathi-Serve and BROS judge so). A target that a request does not
carry is met, and so is TPOT with a single token. A failed request met neither.

A request in flight at the end counts once its verdict is certain: its first token came late, or is already
overdue, which misses both TTFT and the two together; a first token in time is a TTFT met. Otherwise it is
left out of the share that it cannot answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.metrics.run import Run


def ttft_met(record: RequestRecord, end_s: float) -> bool | None:
    """Tell whether the first token came in time; None where that is not known yet."""
    if record.error is not None:
        return False
    if record.ttft_ms is None:
        return True
    due_s = record.ttft_ms / 1000.0
    if record.ttft_s is not None:
        return record.ttft_s <= due_s
    return False if end_s - record.arrival_s > due_s else None


def tpot_met(record: RequestRecord) -> bool | None:
    """Tell whether the mean time per token stayed within its target; None before the end."""
    if record.error is not None:
        return False
    if not record.finished:
        return None
    if record.tpot_ms is None or record.tpot_s is None:
        return True
    return record.tpot_s <= record.tpot_ms / 1000.0


def within(record: RequestRecord, end_s: float) -> bool | None:
    """Tell whether both targets were met; None where that is not known yet."""
    first, rest = ttft_met(record, end_s), tpot_met(record)
    if first is False or rest is False:
        return False
    return None if first is None or rest is None else True


def _share(verdicts: Iterable[bool | None]) -> float | None:
    known = [verdict for verdict in verdicts if verdict is not None]
    return sum(known) / len(known) if known else None


@metric("rt", "attainment")
def rt_attainment(run: Run) -> float | None:
    """Return the share of RT requests within both targets."""
    return _share(within(record, run.facts.end_s) for record in run.rt)


@metric("rt", "ttft_attainment")
def rt_ttft_attainment(run: Run) -> float | None:
    """Return the share of RT requests within their TTFT target."""
    return _share(ttft_met(record, run.facts.end_s) for record in run.rt)


@metric("rt", "tpot_attainment")
def rt_tpot_attainment(run: Run) -> float | None:
    """Return the share of RT requests within their TPOT target."""
    return _share(tpot_met(record) for record in run.rt)


@metric("rt", "token_attainment")
def rt_token_attainment(run: Run) -> float | None:
    """Return the share of RT tokens that met their own deadline: arrival + TTFT + k × TPOT, k from 0."""
    counted = [record for record in run.rt if record.on_time_tokens is not None]
    generated = sum(record.generated_tokens for record in counted)
    return sum(record.on_time_tokens or 0 for record in counted) / generated if generated else None
