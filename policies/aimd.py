"""The paper's adaptive batch size, for comparison: doubles while no deadline binds, falls back at once.

BROS, section 4.3: "cap 128; doubles while no real-time deadline binds; back to 128 at once when the predicted
iteration time passes the slack", as TCP sizes its window.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class AimdCap:
    """How many requests a step may hold."""

    start: int = 128
    largest: int = 1 << 14
    cap: int = 128

    def update(self, *, binds: bool) -> int:
        """Move the cap after looking at a step; `binds` says that its predicted time passes the slack."""
        self.cap = self.start if binds else min(self.cap * 2, self.largest)
        return self.cap
