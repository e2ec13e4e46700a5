"""Goodput: RT requests per second that met both targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.attainment import within
from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("rt", "goodput_requests_per_s")
def rt_goodput_requests_per_s(run: Run) -> float:
    """Return the requests that arrived in the measured part and met both targets, per second of it."""
    return sum(within(record, run.facts.end_s) is True for record in run.rt) / run.seconds
