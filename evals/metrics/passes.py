"""Scheduler passes, real time, and the length of the measured part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("passes")
def passes(run: Run) -> int | None:
    """Return the scheduler's passes that ran a batch."""
    return run.facts.passes


@metric("wall_s")
def wall_s(run: Run) -> float | None:
    """Return the real time that the run took."""
    return run.facts.wall_s


@metric("seconds")
def seconds(run: Run) -> float:
    """Return the length of the measured part on the run's clock."""
    return run.seconds
