"""Who loses its seat when SGLang retracts rows of a decode step: best-effort first, then most slack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def around_decode_retraction_order(original: Callable[..., list[int]], reqs: list[Any]) -> list[int]:
    """Order the rows of a decode batch from most to least worth keeping; SGLang retracts from the end.

    Real-time rows stand in order of when their next token is due, tightest first; best-effort rows keep
    SGLang's own order behind them. Rows that end with this step come first.
    """
    order = original(reqs)
    ending = [i for i in order if reqs[i].to_finish is not None]
    staying = [i for i in order if reqs[i].to_finish is None]
    realtime = sorted((i for i in staying if reqs[i].bros.is_rt), key=lambda i: reqs[i].bros.next_due_s)
    return ending + realtime + [i for i in staying if not reqs[i].bros.is_rt]
