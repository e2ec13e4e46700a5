"""One clock for all ranks: rank 0's time and step measurements ride on the request broadcast.

Every tensor-parallel rank runs a scheduler of its own and must decide alike, while their clocks differ.
`Scheduler.ingest_requests` lets rank 0 add messages of its own to what it broadcasts anyway; a `ClockTick`
rides there, and decisions read `AgreedClock.now_s` alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_LOOK_EVERY_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class ClockTick:
    """What rank 0 tells all ranks, itself included, once a pass."""

    now_s: float  # time.perf_counter() of rank 0
    steps: tuple[tuple[int, float], ...]  # (forward_iter, measured seconds) of steps that ended


def read_clock() -> float:
    """Return this process's monotonic time, seconds; for measuring, never for deciding."""
    return time.perf_counter()


def sleep_until(at_s: float, is_over: Callable[[], bool]) -> None:
    """Sleep until `read_clock()` says so, or until what is slept for turns out to be over already."""
    while (left_s := at_s - read_clock()) > 0.0 and not is_over():
        time.sleep(min(left_s, _LOOK_EVERY_S))


class AgreedClock:
    """The last time that all ranks agreed on; it never runs backwards."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def advance(self, now_s: float) -> None:
        """Take over a newer time; an older one (a clock jump) is ignored."""
        self.now_s = max(self.now_s, now_s)
