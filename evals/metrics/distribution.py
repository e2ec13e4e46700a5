"""Mean and quantiles, in milliseconds, of times in seconds: the shape of every latency in `results.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

QUANTILES = (50, 90, 99)


def distribution_ms(times_s: Iterable[float | None]) -> dict[str, float | None]:
    """Return mean, p50, p90, p99 and max in milliseconds; each None where there are no values.

    None among the values is left out. Quantiles interpolate linearly (numpy's default).
    """
    values = np.array([time_s for time_s in times_s if time_s is not None], dtype=float) * 1000.0
    if values.size == 0:
        return dict.fromkeys(("mean", *(f"p{q}" for q in QUANTILES), "max"))
    quantiles = np.percentile(values, QUANTILES)
    return {
        "mean": float(values.mean()),
        **{f"p{q}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        "max": float(values.max()),
    }
