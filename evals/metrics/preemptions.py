"""Preemptions: how often a running request lost its slot, retractions for want of memory included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("preemptions")
def preemptions(run: Run) -> int:
    """Return the preemptions of all requests."""
    return sum(record.preemptions for record in run.records)


@metric("rt", "preemptions")
def rt_preemptions(run: Run) -> int:
    """Return the preemptions of RT requests: 0 is the aim."""
    return sum(record.preemptions for record in run.rt)
