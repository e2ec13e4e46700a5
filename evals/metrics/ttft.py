"""Time to first token, per class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.distribution import distribution_ms
from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.metrics.run import Run


def _ttft_s(record: RequestRecord, end_s: float) -> float | None:
    if record.error is not None or record.ttft_s is not None:
        return None if record.error is not None else record.ttft_s
    # Still waiting when the run ended: it counts with its wait so far where that is already over its target.
    # Leaving those out would flatter the policy that let them wait; a wait still in time says nothing yet.
    waited_s = end_s - record.arrival_s
    return waited_s if record.ttft_ms is not None and waited_s * 1000.0 > record.ttft_ms else None


@metric("rt", "ttft_ms")
def rt_ttft_ms(run: Run) -> dict[str, float | None]:
    """Return the distribution over RT; one overdue at the end counts with its wait so far."""
    return distribution_ms(_ttft_s(record, run.facts.end_s) for record in run.rt)


@metric("be", "ttft_ms")
def be_ttft_ms(run: Run) -> dict[str, float | None]:
    """Return the distribution over BE, in the same way."""
    return distribution_ms(_ttft_s(record, run.facts.end_s) for record in run.be)
