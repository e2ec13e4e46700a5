"""A floor under best-effort progress: the engine time it is owed while real-time work takes the steps.

What best-effort work had before a burst counts towards what it is owed. Room in the KV pool follows from
time: best-effort work that is owed the most there is (`is_due`) and holds no room is let in before real-time
requests.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FloorShare:
    """Counts engine time owed to best-effort work, up to one useful chunk's worth.

    share: of engine time, while best-effort work waits. largest_s: more than this is not owed at once, so
    that a long real-time burst is not followed by a long best-effort one. credit_s: so much that it had
    beyond its share is remembered.
    """

    share: float
    largest_s: float = 0.05
    credit_s: float = 0.3
    balance_s: float = 0.0  # owed, or if negative had in advance

    @property
    def owed_s(self) -> float:
        """Engine time owed now."""
        return max(self.balance_s, 0.0)

    @property
    def is_due(self) -> bool:
        """Whether best-effort work has waited so long that it is owed the most there is."""
        return self.share > 0.0 and self.balance_s >= self.largest_s

    def step(self, *, seconds: float, best_effort_share: float, best_effort_waits: bool) -> None:
        """Account for a step of which best-effort work had `best_effort_share` (0 to 1)."""
        balance_s = self.balance_s + seconds * (self.share - best_effort_share)
        if not best_effort_waits:
            balance_s = min(balance_s, 0.0)
        self.balance_s = min(max(balance_s, -self.credit_s * (self.share > 0.0)), self.largest_s)
