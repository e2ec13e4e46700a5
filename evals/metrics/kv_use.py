"""KV pool use: mean and highest share of the pool, per class and for the prefix cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("kv_use")
def kv_use(run: Run) -> dict[str, float | None]:
    """Return the shares over the samples of the measured part; null without samples."""
    samples = [
        sample
        for sample in run.facts.samples
        if sample.pool_tokens > 0 and run.facts.start_s <= sample.at_s <= run.facts.end_s
    ]
    keys = ("rt_mean", "be_mean", "cached_mean", "held_mean", "held_max")
    if not samples:
        return dict.fromkeys(keys)
    rt, be, cached = (
        np.array([getattr(sample, name) / sample.pool_tokens for sample in samples])
        for name in ("rt_tokens", "be_tokens", "cached_tokens")
    )
    held = rt + be
    return dict(
        zip(
            keys,
            (float(rt.mean()), float(be.mean()), float(cached.mean()), float(held.mean()), float(held.max())),
            strict=True,
        )
    )
