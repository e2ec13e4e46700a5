"""Who loses its seat when a decode step does not fit: best-effort first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def around_decode_retraction_order(original: Callable[..., list[int]], reqs: list[Any]) -> list[int]:
    """Order the rows of a decode batch from most to least worth keeping; SGLang retracts from the end.

    Real-time rows keep SGLang's own order among themselves, and so do best-effort rows behind them.
    """
    order = original(reqs)
    return [i for i in order if reqs[i].bros.is_rt] + [i for i in order if not reqs[i].bros.is_rt]
