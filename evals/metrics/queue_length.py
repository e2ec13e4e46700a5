"""Queue lengths: requests waiting for admission, per class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("queue_length")
def queue_length(run: Run) -> dict[str, dict[str, float | None]]:
    """Return mean, p99 and max of the waiting requests over the samples of the measured part."""
    inside = [s for s in run.facts.samples if run.facts.start_s <= s.at_s <= run.facts.end_s]
    out: dict[str, dict[str, float | None]] = {}
    for request_class in ("rt", "be"):
        lengths = np.array([getattr(sample, f"{request_class}_waiting") for sample in inside])
        if lengths.size == 0:
            out[request_class] = dict.fromkeys(("mean", "p99", "max"))
        else:
            out[request_class] = {
                "mean": float(lengths.mean()),
                "p99": float(np.percentile(lengths, 99)),
                "max": float(lengths.max()),
            }
    return out
