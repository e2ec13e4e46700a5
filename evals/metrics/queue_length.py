"""How many requests wait for admission and how many run, per class and in all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.metrics.run import Run, StateSample

# Where each stands in a sample.
_WAITING = {"rt": "rt_waiting", "be": "be_waiting", "all": "waiting"}
_RUNNING = {"rt": "rt_running", "be": "be_running", "all": "running"}


@metric("queue_length")
def queue_length(run: Run) -> dict[str, dict[str, float | None]]:
    """Return mean, p99 and max of the waiting requests over the samples of the measured part."""
    return {name: _figures(run.samples, key) for name, key in _WAITING.items()}


@metric("running")
def running(run: Run) -> dict[str, dict[str, float | None]]:
    """Return mean, p99 and max of the running requests over the samples of the measured part."""
    return {name: _figures(run.samples, key) for name, key in _RUNNING.items()}


def _figures(samples: Sequence[StateSample], key: str) -> dict[str, float | None]:
    counts = np.array(
        [count for sample in samples if (count := getattr(sample, key)) is not None], dtype=float
    )
    if counts.size == 0:
        return dict.fromkeys(("mean", "p99", "max"))
    return {
        "mean": float(counts.mean()),
        "p99": float(np.percentile(counts, 99)),
        "max": float(counts.max()),
    }
