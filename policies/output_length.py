"""How many more tokens a running request is expected to make, learned from those that finished.

Admission has to leave room for outputs. Reserving every client's limit wastes most of the pool; SGLang's one
ratio for all learns from retractions. Here each class has its own moving mean and spread, and an error costs
little: when room runs out, best-effort requests give way with their KV kept. Pure: numbers in, numbers out.
"""

from __future__ import annotations

from typing import Final

_PRIOR_SHARE: Final = 0.5  # of the limit, before anything has finished
_PRIOR_WEIGHT: Final = 16  # finished requests that outweigh the prior
_LONG_RUN_SHARE: Final = 0.25  # of the typical length, expected of one that is already past it


class OutputLength:
    """Moving mean and mean deviation of finished output lengths, tokens."""

    def __init__(self, spreads: float = 1.0) -> None:
        self._mean = 0.0
        self._deviation = 0.0
        self._finished = 0
        self._spreads = spreads

    def observe(self, tokens: int) -> None:
        """Learn from a request that finished after `tokens` output tokens."""
        self._finished += 1
        weight = max(1.0 / self._finished, 0.01)
        self._deviation += weight * (abs(tokens - self._mean) - self._deviation)
        self._mean += weight * (tokens - self._mean)

    def expected_remaining(self, limit_tokens: int, made_tokens: int) -> int:
        """Return how many more tokens to reserve for a request with that limit that made so many."""
        left = max(limit_tokens - made_tokens, 0)
        trust = min(1.0, self._finished / _PRIOR_WEIGHT)
        learned = self._mean + self._spreads * self._deviation
        typical = trust * learned + (1.0 - trust) * _PRIOR_SHARE * limit_tokens
        return min(left, int(max(typical - made_tokens, _LONG_RUN_SHARE * typical)) + 1)
