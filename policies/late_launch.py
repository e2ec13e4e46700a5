"""When to plan the next step: as late as the device allows, so that it is planned with all that has arrived.

Under overlap scheduling the host is a step ahead: it launches a step as soon as the one before begins. A
real-time request that arrives a moment later waits for both. Planning just before the running step ends
costs the device nothing and halves that wait. What planning and launching take is measured; the worst of
lately, and the error of the step-time model, are kept as lead. Pure: numbers in, numbers out.
"""

from __future__ import annotations

import math
from typing import Final

_LEAST_LEAD_S: Final = 0.002
_SPARE: Final = 1.25  # of the worst preparation
_FADE: Final = 0.98  # of the worst preparation, with each one
_BANDS: Final = 2.0  # the running step may end so many mean relative errors early
_MOST_EARLY: Final = 0.5


class LaunchLead:
    """How long before the running step ends the host has to begin with the next one."""

    def __init__(self) -> None:
        self._worst_s = 0.0

    @property
    def seconds(self) -> float:
        """The lead, at least 2 ms."""
        return max(_LEAST_LEAD_S, _SPARE * self._worst_s)

    def prepared(self, seconds: float) -> None:
        """Note how long a step took from the first look at arrivals to its launch; nonsense is ignored."""
        if 0.0 <= seconds < math.inf:
            self._worst_s = max(seconds, self._worst_s * _FADE)


def plan_at(begin_s: float, predicted_s: float, band: float, lead_s: float) -> float:
    """Return when to plan the step after one that began at `begin_s`.

    predicted_s: of the running step. band: mean relative error of predictions. A moment that has passed means
    at once.
    """
    early = min(_BANDS * max(band, 0.0), _MOST_EARLY)
    return begin_s + predicted_s * (1.0 - early) - lead_s
