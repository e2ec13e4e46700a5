"""How full the pool will get: the most tokens that running requests will hold at one time.

LightLLM's estimate (ModelTC/LightLLM, "token attention" router; Gong et al., "Past-Future Scheduler for LLM
Serving under SLA Guarantees", ASPLOS 2025): every running request grows by a token a step and gives all it
holds back when it ends, so the fullest moment is just before one of them ends. Reserving every output to its
end counts requests at their largest that are never large together; this does not. Pure: numbers in, numbers
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Row(NamedTuple):
    """A request that holds room or is about to. Tokens."""

    remaining: float  # steps (output tokens) until it ends
    held: float  # what its end gives back, of what it holds now or takes at once


class FutureUse:
    """The growth of a set of requests until its fullest moment, before and after adding some.

    arrivals: tokens that requests yet to arrive will hold so many steps from now (an array in, one out).
    """

    def __init__(self, rows: Iterable[Row] = (), arrivals: Callable[[Floats], Floats] | None = None) -> None:
        pairs = np.array([*rows], dtype=np.float64).reshape(-1, 2)
        order = np.argsort(pairs[:, 0], kind="stable")
        self._remaining: Floats = pairs[order, 0]
        self._held: Floats = pairs[order, 1]
        self._arrivals = arrivals

    def __len__(self) -> int:
        return len(self._remaining)

    def growth(self) -> float:
        """Return how many tokens more than now are held at the fullest moment; never below 0."""
        return self._growth(self._remaining, self._held)

    def growth_with(self, row: Row) -> float:
        """Return the growth if `row` is added: what it takes at once counts in full."""
        at = int(np.searchsorted(self._remaining, row.remaining))
        remaining = np.insert(self._remaining, at, row.remaining)
        held = np.insert(self._held, at, row.held)
        return row.held + self._growth(remaining, held)

    def add(self, row: Row) -> None:
        """Count a request that was admitted."""
        at = int(np.searchsorted(self._remaining, row.remaining))
        self._remaining = np.insert(self._remaining, at, row.remaining)
        self._held = np.insert(self._held, at, row.held)

    def _growth(self, remaining: Floats, held: Floats) -> float:
        count = len(remaining)
        if not count:
            return 0.0
        # Just before the k-th ends, those before it have given back what they held; the others, itself
        # included, have each grown by its remaining steps.
        given_back = np.cumsum(held) - held
        growth = np.arange(count, 0, -1) * remaining - given_back
        if self._arrivals is not None:
            growth = growth + self._arrivals(remaining)
        return max(0.0, float(growth.max()))
