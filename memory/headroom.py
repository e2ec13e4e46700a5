"""How much of the pool best-effort admission leaves for real-time requests that are yet to arrive.

Sized from what recently arrived: rate, prompt sizes, how long they stay. All times are the caller's clock, in
seconds: every tensor-parallel rank is fed the agreed clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(slots=True)
class DecayedSum:
    """A sum in which what is `window_s` old counts 1/e; divided by the window it is a rate."""

    window_s: float
    value: float = 0.0
    _at_s: float = -math.inf

    def add(self, now_s: float, amount: float) -> None:
        """Add at a time that is not before the last one (earlier times count as the last)."""
        self.value = self.at(now_s) + amount
        self._at_s = max(now_s, self._at_s)

    def at(self, now_s: float) -> float:
        """Return the sum as of now."""
        if self.value == 0.0:
            return 0.0
        return self.value * math.exp(-max(0.0, now_s - self._at_s) / self.window_s)


class RtDemand:
    """Recent real-time arrivals, and the room that the next ones will hold.

    window_s: how far back "recent" reaches. sigmas: how much burst above the mean is covered (arrivals are
    taken as Poisson).
    """

    def __init__(self, *, window_s: float = 30.0, sigmas: float = 3.0) -> None:
        self.window_s = window_s
        self.sigmas = sigmas
        self._arrivals = DecayedSum(window_s)
        self._prompts = DecayedSum(window_s)
        self._squares = DecayedSum(window_s)
        self._outputs = DecayedSum(window_s)

    def arrived(self, now_s: float, prompt_tokens: int, output_tokens: int) -> None:
        """Note a real-time arrival: what its prompt takes at once, and the output it is expected to make."""
        self._arrivals.add(now_s, 1.0)
        self._prompts.add(now_s, float(prompt_tokens))
        self._squares.add(now_s, float(prompt_tokens) ** 2)
        self._outputs.add(now_s, float(output_tokens))

    def held_after(self, steps: Floats, *, now_s: float, step_s: float) -> Floats:
        """Return the tokens that arrivals from now on hold after so many steps of `step_s`, burst included.

        Mean and variance of a compound Poisson sum: rate x time x E[tokens], and x E[tokens squared]. Those
        that came more than a mean output ago have gone again.
        """
        arrivals = self._arrivals.at(now_s)
        if arrivals <= 0.0:
            return np.zeros_like(steps)
        present = np.minimum(steps, self._outputs.at(now_s) / arrivals)  # steps since the oldest of them came
        seconds = present * step_s / self.window_s
        mean = seconds * (self._prompts.at(now_s) + arrivals * present / 2)
        return mean + self.sigmas * np.sqrt(seconds * self._squares.at(now_s))


# Least and largest headroom by default: what real-time requests take from best-effort ones is computed again,
# or comes back from host memory at about a tenth of that.
_SHARES: Final = (0.05, 0.40)
_SHARES_WITH_HOST: Final = (0.0, 0.05)


def headroom_bounds(
    min_share: float | None, max_share: float | None, *, host_keeps_preempted: bool
) -> Bounds:
    """Return the bounds that the settings ask for; where they leave one open, by what preemption costs."""
    least, most = _SHARES_WITH_HOST if host_keeps_preempted else _SHARES
    if min_share is None:
        min_share = least if max_share is None else min(least, max_share)
    return Bounds(min_share, max(min_share, most) if max_share is None else max_share)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Least and largest headroom, as shares of the pool."""

    min_share: float
    max_share: float

    def __post_init__(self) -> None:
        """Raise ValueError on shares outside 0 <= min_share <= max_share <= 1."""
        if not 0.0 <= self.min_share <= self.max_share <= 1.0:
            raise ValueError(
                "headroom shares must satisfy 0 <= min <= max <= 1,"
                f" got {self.min_share} and {self.max_share}"
            )

    def clip(self, tokens: Floats, pool_tokens: int) -> Floats:
        """Keep expected tokens within the shares."""
        return np.clip(tokens, self.min_share * pool_tokens, self.max_share * pool_tokens)
