"""Time per output token after the first: each request's mean, and its longest gap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.distribution import distribution_ms
from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("rt", "tpot_ms")
def rt_tpot_ms(run: Run) -> dict[str, float | None]:
    """Return the distribution of RT requests' mean TPOT."""
    return distribution_ms(record.tpot_s for record in run.rt)


@metric("be", "tpot_ms")
def be_tpot_ms(run: Run) -> dict[str, float | None]:
    """Return the distribution of BE requests' mean TPOT."""
    return distribution_ms(record.tpot_s for record in run.be)


@metric("rt", "longest_gap_ms")
def rt_longest_gap_ms(run: Run) -> dict[str, float | None]:
    """Return the distribution of RT requests' longest time between two tokens: the stall a reader sees."""
    return distribution_ms(record.max_gap_s for record in run.rt)
