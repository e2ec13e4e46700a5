"""KV pool use: mean and highest share of the pool, per class and for the prefix cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("kv_use")
def kv_use(run: Run) -> dict[str, float | None]:
    """Return the shares over the samples of the measured part; null for what was not sampled."""
    samples = [sample for sample in run.samples if sample.pool_tokens > 0]
    shares: dict[str, list[float]] = {}
    for part in ("rt", "be", "cached", "held"):
        tokens = [(getattr(sample, f"{part}_tokens"), sample.pool_tokens) for sample in samples]
        shares[part] = [held / pool for held, pool in tokens if held is not None]
    use = {
        f"{part}_mean": sum(part_of) / len(part_of) if part_of else None for part, part_of in shares.items()
    }
    return {**use, "held_max": max(shares["held"], default=None)}
