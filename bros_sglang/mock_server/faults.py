"""Which request is hurt, and how.

Two ways, which add up: a rate (every request is drawn from a seeded generator), and marks in the prompt:
`[[mock:500]]` always answers 500, `[[mock:cut*2]]` cuts the first two attempts at that very body and then
answers. Any fault name or any status code can stand in a mark.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Final


class Fault(StrEnum):
    """What can go wrong with one request."""

    ERROR = "500"  # internal error, OpenAI error body
    BUSY = "503"  # no capacity, with Retry-After
    THROTTLE = "429"  # rate limit, with Retry-After
    CUT = "cut"  # connection reset before a byte of the answer
    CUT_MID = "cut-mid"  # connection reset half-way through the body
    BROKEN = "broken"  # 200 with JSON that does not parse
    EMPTY = "empty"  # 200 with nothing in it
    STALL = "stall"  # no answer until the client gives up


_MARK: Final = re.compile(rb"\[\[mock:([a-z0-9-]+)(?:\*(\d+))?\]\]")


@dataclass(slots=True)
class FaultPlan:
    """Draw a fault, or none, for each request. Deterministic for a seed and an order of requests."""

    rate: float = 0.0  # share of requests hurt, 0 … 1
    kinds: tuple[str, ...] = (Fault.ERROR, Fault.THROTTLE, Fault.CUT, Fault.CUT_MID, Fault.BROKEN)
    seed: int = 0
    _random: random.Random = field(init=False, repr=False)
    _attempts: dict[bytes, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Check the plan; raises ValueError saying what to change."""
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"fault rate must lie in 0 … 1, not {self.rate}")
        for kind in self.kinds:
            check_kind(kind)
        self._random = random.Random(self.seed)  # noqa: S311 (faults to test with, no secrets)

    def draw(self, body: bytes) -> str | None:
        """Return the fault for this request body: a `Fault` value or a status code as text, or None."""
        if b"[[mock:" in body and (mark := _MARK.search(body)):
            kind, times = mark.group(1).decode(), mark.group(2)
            if times is None:
                return kind
            key = blake2b(body, digest_size=8).digest()
            seen = self._attempts.get(key, 0)
            self._attempts[key] = seen + 1
            if seen < int(times):
                return kind
        if self.rate and self._random.random() < self.rate:
            return self._random.choice(self.kinds)
        return None


def check_kind(kind: str) -> None:
    """Raise ValueError when `kind` is neither a fault's name nor a status code of 400 … 599."""
    if kind in set(Fault) or (kind.isdigit() and 400 <= int(kind) <= 599):
        return
    raise ValueError(f"unknown fault {kind!r}: use a status code of 400 … 599 or {', '.join(Fault)}")
