"""A floor under best-effort progress: the engine time it is owed while real-time work takes the steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FloorShare:
    """Counts engine time owed to best-effort work, up to one useful chunk's worth.

    share: of engine time, while best-effort work waits. largest_s: more than this is not owed at once, so
    that a long real-time burst is not followed by a long best-effort one.
    """

    share: float
    largest_s: float = 0.05
    owed_s: float = 0.0

    @property
    def is_due(self) -> bool:
        """Whether best-effort work has waited so long that it is owed the most there is."""
        return self.share > 0.0 and self.owed_s >= self.largest_s

    def step(self, *, seconds: float, best_effort_share: float, best_effort_waits: bool) -> None:
        """Account for a step of which best-effort work had `best_effort_share` (0 to 1)."""
        if not best_effort_waits:
            self.owed_s = 0.0
            return
        owed = self.owed_s + seconds * (self.share - best_effort_share)
        self.owed_s = min(max(owed, 0.0), self.largest_s)
