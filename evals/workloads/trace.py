"""What every trace loader returns: lengths, and where the trace has them arrival times and prefix blocks."""

from __future__ import annotations

from typing import NamedTuple


class TracedRequest(NamedTuple):
    """One line of a trace."""

    arrival_s: float | None  # seconds since the first line; None where the trace has no times
    prompt_tokens: int
    output_tokens: int
    prefix: tuple[tuple[int, int], ...] = ()  # (block id, tokens), leading blocks
