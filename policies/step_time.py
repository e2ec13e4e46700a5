"""Predict how long a step takes, learned online from the steps that ran (BROS, section 4.2).

Linear in what a step computes: new tokens, their attention to the context (the paper's product term), decode
rows and their context, and KV brought back from host. Prefill or mixed steps and decode-only steps have
coefficients of their own: decode runs in captured graphs, prefill does not. Fitted by robust recursive least
squares with forgetting, times a pace that follows the machine's slow and fast stretches; a garbage-collection
pause or a kernel compiled on first use moves nothing. Pure: numbers in, numbers out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class StepShape(NamedTuple):
    """What one step computes."""

    prefill_tokens: int = 0
    prefill_pairs: float = 0.0  # sum over prefills of new tokens × (cached tokens + new tokens / 2)
    decode_rows: int = 0
    decode_context: int = 0  # tokens of context that the decode rows attend to
    load_back_tokens: int = 0  # KV tokens copied from host before the step

    @property
    def is_decode_only(self) -> bool:
        """Whether no prefill token is in the step."""
        return self.prefill_tokens == 0


def pairs(prefix_tokens: int, new_tokens: int) -> float:
    """Return the attention pairs of a prefill of `new_tokens` after `prefix_tokens` cached ones."""
    return new_tokens * (prefix_tokens + new_tokens / 2)


# Units that bring every coefficient to about 1e-3 s, so that one regularisation suits all.
_SCALE: Final = np.array([1.0, 1e2, 1e6, 1e1, 1e4, 1e3])
_FEATURES: Final = len(_SCALE)
_PRIOR_VARIANCE: Final = 1e-2
_AGREEING_OUTLIERS: Final = 3  # in a row: the pace has changed
_CHANGED_OUTLIERS: Final = 24  # in a row: the machine has
_FIRST_STEPS: Final = 20  # taken as they come
_PACE_GAIN: Final = 0.3  # of a step's deviation that the pace takes over
_PACE_STEP: Final = 0.3  # the most of it, in logarithms
_PACE_RANGE: Final = 3.0


def _features(shape: StepShape) -> Vector:
    features: Vector = (
        np.array(
            [
                1.0,
                shape.prefill_tokens,
                shape.prefill_pairs,
                shape.decode_rows,
                shape.decode_context,
                shape.load_back_tokens,
            ]
        )
        / _SCALE
    )
    return features


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Seconds per unit of each feature; what `predict` adds up."""

    fixed_s: float
    per_prefill_token_s: float
    per_prefill_pair_s: float
    per_decode_row_s: float
    per_context_token_s: float
    per_load_back_token_s: float

    def predict(self, shape: StepShape) -> float:
        """Return the predicted duration of a step, seconds."""
        return (
            self.fixed_s
            + self.per_prefill_token_s * shape.prefill_tokens
            + self.per_prefill_pair_s * shape.prefill_pairs
            + self.per_decode_row_s * shape.decode_rows
            + self.per_context_token_s * shape.decode_context
            + self.per_load_back_token_s * shape.load_back_tokens
        )

    def prefill_s(self, prefix_tokens: int, new_tokens: int) -> float:
        """Return what a prefill of `new_tokens` after `prefix_tokens` cached ones adds to a step, seconds."""
        return self.per_prefill_token_s * new_tokens + self.per_prefill_pair_s * pairs(
            prefix_tokens, new_tokens
        )

    def prefill_tokens_within(self, seconds: float, prefix_tokens: int = 0) -> int:
        """Return how many more prefill tokens after `prefix_tokens` cached ones take at most `seconds`.

        Solves a·n + b·(prefix·n + n²/2) = seconds for n; no search.
        """
        if seconds <= 0.0:
            return 0
        linear = self.per_prefill_token_s + self.per_prefill_pair_s * prefix_tokens
        quadratic = self.per_prefill_pair_s / 2
        if linear <= 0.0 and quadratic <= 0.0:
            return 1 << 30
        if quadratic <= 1e-18:
            return int(min(seconds / linear, 1 << 30))
        root = (-linear + math.sqrt(linear * linear + 4 * quadratic * seconds)) / (2 * quadratic)
        return int(min(root, 1 << 30))

    def decode_rows_within(self, seconds: float, context_per_row: float) -> int:
        """Return how many more decode rows of that mean context take at most `seconds`."""
        per_row = self.per_decode_row_s + self.per_context_token_s * context_per_row
        if seconds <= 0.0:
            return 0
        return 1 << 30 if per_row <= 0.0 else int(min(seconds / per_row, 1 << 30))


class _Fit:
    """Recursive least squares of one kind of step: robust, with a pace and an error band.

    A slow stretch of the machine (another process on its cores, a throttled clock) stretches all steps alike
    and passes: `pace` follows it within a few steps, while the coefficients learn what shapes cost. Residuals
    beyond the usual error count less the larger they are (Huber's weights), since what disturbs a step makes
    it longer, never shorter, and would bias a plain mean.
    """

    def __init__(self, start: Vector, forgetting: float) -> None:
        self.theta = start.copy()
        self.covariance = np.eye(_FEATURES) * _PRIOR_VARIANCE
        self.forgetting = forgetting
        self.observed = 0
        self.relative_error = 0.2  # moving mean of |error| / actual, of what was predicted with the pace
        self.pace = 1.0  # of the machine now, against what the coefficients say
        self._usual_error = 0.2  # moving median of |residual| / predicted, without the pace
        self._outliers_in_a_row = 0
        self.coefficients = self._as_coefficients()

    def _as_coefficients(self) -> Coefficients:
        # A negative slope would lend time that a larger batch does not give back.
        seconds = np.maximum(self.theta, 0.0) / _SCALE * self.pace
        return Coefficients(*(float(value) for value in seconds))

    def observe(self, shape: StepShape, actual_s: float) -> None:
        x = _features(shape)
        predicted_s = max(self.coefficients.predict(shape), 1e-6)
        error_s = actual_s - predicted_s
        self.relative_error += 0.02 * (min(abs(error_s) / actual_s, 1.0) - self.relative_error)
        if self.observed < _FIRST_STEPS:
            self._learn(x, actual_s, 1.0 / max(actual_s, predicted_s, 1e-4))
        elif self._follows(error_s / predicted_s):
            lasting_s = predicted_s / self.pace
            self._follow_pace(math.log(actual_s / predicted_s))
            residual = abs(actual_s - lasting_s) / lasting_s
            self._usual_error *= math.exp(0.05 if residual > self._usual_error else -0.05)
            self._usual_error = min(max(self._usual_error, 0.01), 1.0)
            weight = min(1.0, self._usual_error / max(residual, 1e-9))
            self._learn(x, actual_s, math.sqrt(weight) / max(lasting_s, 1e-4))
        self.observed += 1
        self.coefficients = self._as_coefficients()

    def _follows(self, error: float) -> bool:
        """Say whether a step with that relative error is to be learned from; a lone outlier is not."""
        if abs(error) <= max(5.0 * self._usual_error, 0.5):
            self._outliers_in_a_row = 0
            return True
        self._outliers_in_a_row += 1
        if self._outliers_in_a_row >= _CHANGED_OUTLIERS:
            # More than the pace can follow: the machine has changed. What was learned weighs little now.
            self.covariance = np.eye(_FEATURES) * _PRIOR_VARIANCE
            self.pace, self.observed, self._outliers_in_a_row = 1.0, 0, 0
        return self._outliers_in_a_row >= _AGREEING_OUTLIERS

    def _follow_pace(self, drift: float) -> None:
        """Move the pace part of the way towards a step that deviated by a factor of exp(drift)."""
        self.pace *= math.exp(_PACE_GAIN * min(max(drift, -_PACE_STEP), _PACE_STEP))
        self.pace = min(max(self.pace, 1.0 / _PACE_RANGE), _PACE_RANGE)

    def _learn(self, x: Vector, actual_s: float, weight: float) -> None:
        """Move the coefficients; relative weights: a 5 % error counts the same on short and long steps."""
        xw = x * weight
        residual = (actual_s - float(self.theta @ x)) * weight
        px = self.covariance @ xw
        gain = px / (self.forgetting + float(xw @ px))
        self.theta = self.theta + gain * residual
        self.covariance = (self.covariance - np.outer(gain, px)) / self.forgetting
        # Directions that the load never excites would grow without bound under forgetting.
        trace = float(np.trace(self.covariance))
        if trace > 1.0:
            self.covariance /= trace


# A cautious guess for a GPU of the last years and an 8B model; replaced within some dozen steps.
DEFAULT_START: Final = Coefficients(6e-3, 3e-5, 5e-10, 1e-5, 3e-8, 2e-6)


class StepTimeModel:
    """Step durations by shape; `observe` teaches it, `predict` and the solvers of `Coefficients` use it."""

    def __init__(self, start: Coefficients = DEFAULT_START, forgetting: float = 0.998) -> None:
        theta = (
            np.array(
                [
                    start.fixed_s,
                    start.per_prefill_token_s,
                    start.per_prefill_pair_s,
                    start.per_decode_row_s,
                    start.per_context_token_s,
                    start.per_load_back_token_s,
                ]
            )
            * _SCALE
        )
        self._prefill = _Fit(theta, forgetting)
        self._decode = _Fit(theta, forgetting)

    def _fit(self, *, decode_only: bool) -> _Fit:
        return self._decode if decode_only else self._prefill

    def coefficients(self, *, decode_only: bool) -> Coefficients:
        """Return the coefficients in force for decode-only or for prefill and mixed steps."""
        return self._fit(decode_only=decode_only).coefficients

    def predict(self, shape: StepShape) -> float:
        """Return the predicted duration of a step, seconds."""
        return self._fit(decode_only=shape.is_decode_only).coefficients.predict(shape)

    def band(self, *, decode_only: bool) -> float:
        """Return the mean relative error of late predictions: the safety margin is a multiple of it."""
        return self._fit(decode_only=decode_only).relative_error

    def observed(self, *, decode_only: bool) -> int:
        """Return how many steps of that kind taught the model."""
        return self._fit(decode_only=decode_only).observed

    def observe(self, shape: StepShape, actual_s: float) -> None:
        """Learn from a step that took `actual_s` seconds; what cannot be a duration is ignored."""
        if not math.isfinite(actual_s) or not 0.0 < actual_s < 60.0:
            return
        self._fit(decode_only=shape.is_decode_only).observe(shape, actual_s)

    def to_json(self) -> dict[str, Any]:
        """Return the coefficients as plain numbers, for a profile file or a status page."""
        return {
            kind: {
                **{name: getattr(fit.coefficients, name) for name in Coefficients.__slots__},
                "relative_error": fit.relative_error,
                "observed": fit.observed,
            }
            for kind, fit in (("prefill", self._prefill), ("decode", self._decode))
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> StepTimeModel:
        """Rebuild a model from `to_json`; raises KeyError or TypeError where the data are not such."""
        model = cls()
        for kind, fit in (("prefill", model._prefill), ("decode", model._decode)):
            seconds = np.array([float(data[kind][name]) for name in Coefficients.__slots__])
            fit.theta = seconds * _SCALE
            fit.coefficients = fit._as_coefficients()
        return model
