"""The virtual clock, and the stand-in for the `time` module that reads it."""

from __future__ import annotations

import threading
import time as real_time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# SGLang takes a stamp of 0.0 for "not set", and clients compare against dates: both need an origin.
MONOTONIC_ORIGIN_S = 1_000.0
EPOCH_ORIGIN_S = 1_700_000_000.0


class VirtualClock:
    """Seconds since the start of the replay, for the CPU (`now_s`) and the device (`free_s`).

    The scheduler's thread lives at `now_s`. The device works in order and is free again at `free_s`; a wait
    for the device moves `now_s` there, nothing else of the device does.
    """

    __slots__ = ("free_s", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.free_s = 0.0

    def advance_to(self, moment_s: float) -> None:
        """Move the CPU's time forward to `moment_s`; a moment that has passed changes nothing."""
        self.now_s = max(self.now_s, moment_s)

    def run_on_device(self, seconds: float) -> None:
        """Put `seconds` of work behind what the device has to do already."""
        self.free_s = max(self.free_s, self.now_s) + seconds


class VirtualTime:
    """Stands where SGLang's modules hold the module `time`; what it lacks, the real module answers."""

    def __init__(self, clock: VirtualClock) -> None:
        main_thread = threading.get_ident()

        def monotonic() -> float:
            return clock.now_s + MONOTONIC_ORIGIN_S

        def monotonic_ns() -> int:
            return int((clock.now_s + MONOTONIC_ORIGIN_S) * 1e9)

        def epoch() -> float:
            return clock.now_s + EPOCH_ORIGIN_S

        def epoch_ns() -> int:
            return int((clock.now_s + EPOCH_ORIGIN_S) * 1e9)

        def sleep(seconds: float) -> None:
            if threading.get_ident() == main_thread:
                clock.advance_to(clock.now_s + seconds)
            else:  # a background thread (watchdog, publisher) must not move the scheduler's time
                real_time.sleep(seconds)

        self.monotonic = self.perf_counter = self.process_time = self.thread_time = monotonic
        self.monotonic_ns = self.perf_counter_ns = self.process_time_ns = self.thread_time_ns = monotonic_ns
        self.time = epoch
        self.time_ns = epoch_ns
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)

    def replacement(self, function: Callable[..., Any]) -> Callable[..., Any] | None:
        """Return the virtual counterpart of a function of the real module, or None if it has none."""
        name = getattr(function, "__name__", "")
        if name in vars(self) and getattr(real_time, name, None) is function:
            counterpart: Callable[..., Any] = vars(self)[name]
            return counterpart
        return None
