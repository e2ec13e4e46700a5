"""Normalised latency: end-to-end latency over generated tokens (Orca; vLLM; BROS, section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.distribution import distribution_ms
from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("rt", "normalized_latency_ms")
def rt_normalized_latency_ms(run: Run) -> dict[str, float | None]:
    """Return the distribution over finished RT requests."""
    return distribution_ms(record.normalized_latency_s for record in run.rt)


@metric("be", "normalized_latency_ms")
def be_normalized_latency_ms(run: Run) -> dict[str, float | None]:
    """Return the distribution over finished BE requests."""
    return distribution_ms(record.normalized_latency_s for record in run.be)
