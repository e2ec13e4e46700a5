"""Preemptions: how often a running request lost its slot, retractions for want of memory included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("preemptions")
def preemptions(run: Run) -> int | None:
    """Return the preemptions of all requests, as the server counts them where it does."""
    if run.facts.preemptions is not None:
        return run.facts.preemptions
    return sum(record.preemptions for record in run.records) if run.facts.knows_preemptions else None


@metric("rt", "preemptions")
def rt_preemptions(run: Run) -> int | None:
    """Return the preemptions of RT requests: 0 is the aim."""
    return sum(record.preemptions for record in run.rt) if run.facts.knows_preemptions else None
