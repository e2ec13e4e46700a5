"""The longest that a BE request waited for its first token: starvation shows here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("be", "longest_wait_s")
def be_longest_wait_s(run: Run) -> float | None:
    """Return the longest wait; one still waiting at the end counts with its wait so far."""
    end_s = run.facts.end_s
    waits = [
        record.ttft_s if record.ttft_s is not None else end_s - record.arrival_s
        for record in run.be
        if record.error is None
    ]
    return max(waits, default=None)
