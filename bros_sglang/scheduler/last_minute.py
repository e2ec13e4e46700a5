"""What happened in the last minute, at the cost of an addition per event: sums and samples. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

WINDOW_S: Final = 60.0
_MOST_SAMPLES: Final = 4096  # of one kind; beyond that a percentile covers the newest ones


class MinuteSums:
    """Differences of growing counters over the last minute, to within a second.

    The counters themselves stay plain attributes of their owner; `read` returns them as a sequence. Once a
    second, before the first change in it, their values are noted. All times in seconds on one clock.
    """

    def __init__(self, read: Callable[[], Sequence[float]]) -> None:
        self._read = read
        self._next_s = float("-inf")
        self._noted: deque[tuple[float, tuple[float, ...]]] = deque(maxlen=int(WINDOW_S) + 2)

    def note(self, now_s: float) -> None:
        """Call before anything is counted at `now_s`; cheap when called again within a second."""
        if now_s >= self._next_s:
            self._next_s = now_s + 1.0
            self._noted.append((now_s, tuple(self._read())))

    def over_last_minute(self, now_s: float) -> tuple[float, ...]:
        """Return what each counter grew by in the last minute."""
        current = tuple(self._read())
        base = next((values for at_s, values in self._noted if at_s > now_s - WINDOW_S), current)
        return tuple(after - before for after, before in zip(current, base, strict=True))


class MinuteSamples:
    """Values of the last minute, for percentiles."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=_MOST_SAMPLES)

    def add(self, now_s: float, value: float) -> None:
        """Keep a value."""
        self._samples.append((now_s, value))

    def values(self, now_s: float) -> list[float]:
        """Return the values of the last minute; older ones are dropped."""
        samples = self._samples
        while samples and samples[0][0] <= now_s - WINDOW_S:
            samples.popleft()
        return [value for _, value in samples]


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` of the values lie (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
