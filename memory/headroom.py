"""How much room best-effort admission leaves for real-time requests that are about to come.

Demand is what recently arrived (rate and size), over the time until running requests give room back. All
times are the caller's clock, in seconds: every tensor-parallel rank is fed the agreed clock.
"""

import math
from dataclasses import dataclass


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
    """Recent real-time arrivals and recent room given back, for `reserve_tokens`.

    window_s: how far back "recent" reaches. sigmas: how much burst above the mean is covered (arrivals are
    taken as Poisson). least_horizon_s: look ahead at least so far, however fast room comes back.
    """

    def __init__(self, *, window_s: float = 30.0, sigmas: float = 2.0, least_horizon_s: float = 0.0) -> None:
        self.window_s = window_s
        self.least_horizon_s = least_horizon_s
        self.sigmas = sigmas
        self._arrivals = DecayedSum(window_s)
        self._tokens = DecayedSum(window_s)
        self._squares = DecayedSum(window_s)
        self._given_back = DecayedSum(window_s)

    def arrived(self, now_s: float, tokens: int) -> None:
        """Note a real-time arrival and the room it takes at once (uncached prompt and first outputs)."""
        self._arrivals.add(now_s, 1.0)
        self._tokens.add(now_s, float(tokens))
        self._squares.add(now_s, float(tokens) ** 2)

    def gave_back(self, now_s: float, tokens: int) -> None:
        """Note room that a request of either class returned by ending (not by preemption)."""
        self._given_back.add(now_s, float(tokens))

    def horizon_s(self, now_s: float) -> float:
        """Seconds until ending requests have given back the room of one mean real-time request."""
        arrivals, given_back = self._arrivals.at(now_s), self._given_back.at(now_s)
        if arrivals <= 0.0 or given_back <= 0.0:
            return self.window_s
        mean_tokens = self._tokens.at(now_s) / arrivals
        back_s = mean_tokens / (given_back / self.window_s)
        return min(self.window_s, max(back_s, self.least_horizon_s))

    def expected_tokens(self, now_s: float) -> float:
        """Tokens that real-time arrivals will want within the horizon, burst included.

        Mean and variance of a compound Poisson sum: rate x horizon x E[tokens], and x E[tokens squared].
        """
        horizon_s = self.horizon_s(now_s)
        mean = self._tokens.at(now_s) / self.window_s * horizon_s
        variance = self._squares.at(now_s) / self.window_s * horizon_s
        return mean + self.sigmas * math.sqrt(variance)


def reserve_tokens(expected_tokens: float, *, pool_tokens: int, min_share: float, max_share: float) -> int:
    """Tokens to reserve for real-time requests: what is expected, within shares of the pool.

    Raises ValueError on shares outside 0 <= min_share <= max_share <= 1.
    """
    if not 0.0 <= min_share <= max_share <= 1.0:
        raise ValueError(
            f"headroom shares must satisfy 0 <= min <= max <= 1, got {min_share} and {max_share}"
        )
    return int(min(max(expected_tokens, min_share * pool_tokens), max_share * pool_tokens))


@dataclass(frozen=True, slots=True)
class PoolView:
    """Token counts of the pool at admission; all from the host."""

    free: int
    be_evictable: int  # best-effort cache that nobody holds (`BrosRadixCache.be_evictable_tokens`)
    rt_evictable: int  # the rest of what is evictable
    held: int  # KV of preempted requests (`HeldKV.tokens`)
    promised: int  # room that admitted requests have yet to fill (`PrefillBudget.total_offset`)


def best_effort_room(view: PoolView, *, reserve: int, rt_cache_kept: int) -> int:
    """Tokens that best-effort admission may still hand out; negative when the reserve is short already.

    Held KV is never room for another best-effort request, but it is reserve: real-time requests may take it
    at once. So is best-effort cache, which is why it counts as room here and the whole reserve is left out
    of the sum of both. Real-time cache beyond `rt_cache_kept` tokens is room; below, it is left alone.
    """
    room = view.free + view.be_evictable + max(0, view.rt_evictable - rt_cache_kept)
    return room - view.promised - max(0, reserve - view.held)


def real_time_room(view: PoolView) -> int:
    """Tokens that real-time admission may hand out without preempting anyone."""
    return view.free + view.be_evictable + view.rt_evictable + view.held - view.promised
