"""How many more tokens a running request is expected to make, learned from those that finished.

Reserving every client's limit wastes most of the pool; SGLang's one ratio for all learns from retractions.
Here each class has the lengths of its last finished requests, and a request that has made n tokens is
expected to make what those that went beyond n made beyond it, on average. Long outputs are long-tailed: the
further a request has come, the more it has still to go. Pure: numbers in, numbers out.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from itertools import accumulate
from typing import Final

_KEPT: Final = 512  # finished requests
_PRIOR_SHARE: Final = 0.5  # of the limit, before anything has finished
_PRIOR_WEIGHT: Final = 16  # finished requests that outweigh the prior
_FEW: Final = 4  # longer ones than this say nothing reliable
_LONG_RUN_SHARE: Final = 0.25  # of what it has made, expected of one that has outrun nearly all others


class OutputLength:
    """Output lengths of the last finished requests, tokens."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque()
        self._sorted: list[int] = []
        self._from_top: list[int] = [0]  # sum of the k longest
        self._stale = False

    def observe(self, tokens: int) -> None:
        """Learn from a request that finished after `tokens` output tokens."""
        if len(self._recent) == _KEPT:
            self._sorted.pop(bisect_right(self._sorted, self._recent.popleft()) - 1)
        self._recent.append(tokens)
        insort(self._sorted, tokens)
        self._stale = True

    def expected_remaining(self, limit_tokens: int, made_tokens: int) -> int:
        """Return how many more tokens a request with that limit makes on average after so many."""
        return self._remaining(limit_tokens, made_tokens, None)

    def likely_remaining(self, limit_tokens: int, made_tokens: int, quantile: float) -> int:
        """Return a length that a share `quantile` of those that went beyond `made_tokens` did not exceed.

        With evenly spread quantiles, a set of requests ends as spread out as such requests do; with the mean
        for each, none would be about to end.
        """
        return self._remaining(limit_tokens, made_tokens, quantile)

    def _remaining(self, limit_tokens: int, made_tokens: int, quantile: float | None) -> int:
        left = max(limit_tokens - made_tokens, 0)
        finished = len(self._sorted)
        prior = max(_PRIOR_SHARE * limit_tokens - made_tokens, _LONG_RUN_SHARE * made_tokens, 0.0)
        if not finished:
            return min(left, int(prior) + 1)
        shorter = bisect_right(self._sorted, made_tokens)
        longer = finished - shorter
        if longer < _FEW:
            learned = _LONG_RUN_SHARE * made_tokens
        elif quantile is None:
            if self._stale:
                self._from_top = [0, *accumulate(reversed(self._sorted))]
                self._stale = False
            learned = self._from_top[longer] / longer - made_tokens
        else:
            learned = self._sorted[shorter + int(quantile * longer)] - made_tokens
        trust = min(1.0, finished / _PRIOR_WEIGHT)
        return min(left, int(trust * learned + (1.0 - trust) * prior) + 1)
