"""When requests arrive: endless streams of times in seconds, each driven by a seeded generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


def poisson(rng: np.random.Generator, rate: float) -> Iterator[float]:
    """Arrivals of independent users, `rate` per second."""
    at_s = 0.0
    while True:
        at_s += float(rng.exponential(1.0 / rate))
        yield at_s


def uniform(rate: float) -> Iterator[float]:
    """One arrival each 1/rate seconds: a trickle."""
    index = 0
    while True:
        yield index / rate
        index += 1


def burst(rng: np.random.Generator, rate: float, size: int) -> Iterator[float]:
    """Yield groups of `size` simultaneous arrivals, the groups Poisson, `rate` requests per second in all."""
    for at_s in poisson(rng, rate / size):
        for _ in range(size):
            yield at_s


def waves(rng: np.random.Generator, rate: float, low: float, period_s: float, duty: float) -> Iterator[float]:
    """Poisson arrivals at `rate` for the first `duty` share of each period and at `low` for the rest.

    The stream of a unit-rate Poisson process is stretched by the rate in force (time change), which is exact
    over the edges of a wave.
    """
    at_s, phase = 0.0, 0  # even phases are high, odd ones low; edges are counted, not computed back from at_s
    while True:
        work = float(rng.exponential(1.0))
        while True:
            high = phase % 2 == 0
            edge_s = (phase // 2 + (duty if high else 1.0)) * period_s
            now_rate = rate if high else low
            if now_rate * (edge_s - at_s) >= work:
                at_s += work / now_rate
                break
            work -= now_rate * (edge_s - at_s)
            at_s, phase = edge_s, phase + 1
        yield at_s


def at_once() -> Iterator[float]:
    """Everything is there at the start: a corpus."""
    while True:
        yield 0.0
