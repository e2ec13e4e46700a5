"""Predicted against actual step time, where a run supplies both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("step_time")
def step_time(run: Run) -> dict[str, float | None]:
    """Return |predicted − actual| / actual, its median and p95, the mean with its sign, and the count."""
    pairs = np.array([pair for pair in run.facts.step_times_s if pair[1] > 0], dtype=float).reshape(-1, 2)
    if len(pairs) == 0:
        return {"steps": 0, "error_p50": None, "error_p95": None, "bias": None}
    error = (pairs[:, 0] - pairs[:, 1]) / pairs[:, 1]
    middle, high = np.percentile(np.abs(error), (50, 95))
    return {
        "steps": len(pairs),
        "error_p50": float(middle),
        "error_p95": float(high),
        "bias": float(error.mean()),
    }
