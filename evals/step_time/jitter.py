"""Passes that do not take what the model says: the same ones in every run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bros_sglang.evals.step_time.linear import LinearStepTime
    from bros_sglang.evals.step_time.step import Step, StepTimeModel


@dataclass
class JitteredStepTime:
    """Multiplies each pass by a log-normal factor of mean 1 and the given relative spread.

    A policy that learns step times finds a linear model's passes too easy to predict: real ones vary with
    clocks, kernels chosen by shape, and neighbours on the host.
    """

    model: StepTimeModel
    spread: float  # standard deviation over mean, 0.05 for 5 %
    seed: int = 0
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.spread < 1:
            raise ValueError(f"the spread of step times must be above 0 and below 1, not {self.spread}")
        self._sigma = float(np.sqrt(np.log1p(self.spread**2)))
        self._rng = np.random.default_rng([self.seed, 0x57E9])
        self.name = f"{self.model.name}, jitter {self.spread:.0%}"
        self.blocking, self.frontend = self.model.blocking, self.model.frontend

    def step_s(self, step: Step) -> float:
        """Return the seconds of the next pass; each call draws anew."""
        factor = float(np.exp(self._rng.normal(-0.5 * self._sigma**2, self._sigma)))
        return self.model.step_s(step) * factor

    def describe(self) -> dict[str, Any]:
        """Return the constants, JSON-ready."""
        return {**self.model.describe(), "jitter": self.spread, "jitter_seed": self.seed}


@dataclass
class MeasuredVariation:
    """Varies each pass of a fitted model as measured passes did: by a factor, and now and then by a stall.

    A stall is the machine's doing, not the batch's: it is added, and comes as often per second of passes as
    it was measured.
    """

    model: LinearStepTime
    seed: int = 0
    _rng: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.model.variation.factors:
            raise ValueError(f"{self.model.name} knows no variation of its passes")
        self._rng = np.random.default_rng([self.seed, 0x57E9])
        self.name = f"{self.model.name}, varying as measured"
        self.blocking, self.frontend = self.model.blocking, self.model.frontend

    def step_s(self, step: Step) -> float:
        """Return the seconds of the next pass; each call draws anew."""
        predicted_s, variation, draws = self.model.step_s(step), self.model.variation, self._rng.random(3)
        seconds = predicted_s * variation.factors[int(draws[0] * len(variation.factors))]
        if draws[1] < variation.stalls_per_s * predicted_s:
            seconds += variation.stalls_s[int(draws[2] * len(variation.stalls_s))]
        return seconds

    def describe(self) -> dict[str, Any]:
        """Return the constants, JSON-ready."""
        return {**self.model.describe(), "variation_seed": self.seed}
