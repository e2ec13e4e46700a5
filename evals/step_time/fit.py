"""Fit a step-time model to recorded passes: weighted non-negative least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import nnls  # type: ignore[import-untyped]

from bros_sglang.evals.step_time.linear import LinearCoefficients, LinearStepTime, Variation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from bros_sglang.evals.step_time.record import RecordedStep
    from bros_sglang.evals.step_time.step import Step

LEAST_STEPS = 30
VARIATION_QUANTILES = 200
# Steps this many times as long as the model says are the machine's doing (a paused process, a page fault
# storm), not the batch's: left out, and counted.
OUTLIER_FACTOR = 4.0
_COLUMNS = (
    "prefill_pass_s",
    "decode_pass_s",
    "prefill_token_s",
    "prefill_row_s",
    "prefill_context_token_s",
    "attention_pair_s",
    "decode_row_s",
    "decode_context_token_s",
)


class FitError(ValueError):
    """Recorded passes that no model can be fitted to; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class FitReport:
    """How well the model describes the passes that it was fitted to."""

    steps: int
    outliers: int
    error_p50: float  # |predicted - measured| / measured
    error_p95: float
    bias: float  # sum of predicted over sum of measured, less one
    predicted_s: list[float]
    measured_s: list[float]

    def summary(self) -> dict[str, Any]:
        """Return the figures without the single passes."""
        return {
            "steps": self.steps,
            "outliers": self.outliers,
            "error_p50": self.error_p50,
            "error_p95": self.error_p95,
            "bias": self.bias,
        }


def durations(recorded: Sequence[RecordedStep], *, blocking: bool) -> list[tuple[Step, float]]:
    """Return each pass with its duration in seconds.

    On a device that works beside the CPU a pass runs from its launch, or the end of the pass before, to its
    own end. Where the CPU computes itself (`blocking`), passes that follow each other are timed from launch
    to launch, so that the scheduler's own work, which nothing hides there, is part of them.
    """
    passes = []
    for index, now in enumerate(recorded):
        if blocking:
            following = recorded[index + 1] if index + 1 < len(recorded) else None
            if following is not None and not following.after_idle:
                passes.append((now.step, following.launched_s - now.launched_s))
            continue
        before_s = recorded[index - 1].done_s if index else 0.0
        passes.append((now.step, now.done_s - max(now.launched_s, before_s)))
    return [(step, seconds) for step, seconds in passes if seconds > 0]


def _features(steps: Sequence[Step]) -> NDArray[np.float64]:
    return np.array(
        [
            (
                float(step.prefill_rows > 0),
                float(step.prefill_rows == 0),
                step.prefill_tokens,
                step.prefill_rows,
                step.prefill_context_tokens,
                step.attention_pairs,
                step.decode_rows,
                step.decode_context_tokens,
            )
            for step in steps
        ],
        dtype=np.float64,
    )


def _solve(features: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = np.maximum(features.max(axis=0), 1.0)  # columns of like size: attention pairs run to 1e9
    # Each second of passes counts alike: by relative error thousands of short passes would rule the fit,
    # by absolute error a few long ones.
    weight = 1.0 / np.sqrt(seconds)
    solution, _ = nnls(features / scale * weight[:, None], seconds * weight)
    return np.asarray(solution / scale, dtype=np.float64)


def _variation(
    predicted_s: NDArray[np.float64], measured_s: NDArray[np.float64], kept: NDArray[np.bool_]
) -> Variation:
    """Return how the passes that the fit kept vary, weighted by time, and the stalls: the others."""
    factors = measured_s[kept] / predicted_s[kept]
    order = np.argsort(factors)
    reached = np.cumsum(predicted_s[kept][order])
    shares = (np.arange(VARIATION_QUANTILES) + 0.5) / VARIATION_QUANTILES
    drawn = np.interp(shares * reached[-1], reached, factors[order])
    stalls = (measured_s - predicted_s)[~kept]
    return Variation(
        tuple(round(float(factor), 5) for factor in drawn / drawn.mean()),
        float(len(stalls) / predicted_s.sum()),
        tuple(round(float(s), 6) for s in np.quantile(stalls, shares)) if len(stalls) else (),
    )


def fit_steps(
    recorded: Sequence[RecordedStep], name: str, *, blocking: bool, provenance: dict[str, Any] | None = None
) -> tuple[LinearStepTime, FitReport]:
    """Return a model and how well it fits.

    Raises:
        FitError: too few passes, or only one kind of them (prefill or decode).
    """
    passes = durations(recorded, blocking=blocking)
    kinds = {"prefill": sum(step.prefill_rows > 0 for step, _ in passes)}
    kinds["decode"] = len(passes) - kinds["prefill"]
    for kind, count in kinds.items():
        if count < LEAST_STEPS:
            raise FitError(
                f"{count} {kind} passes were recorded, at least {LEAST_STEPS} are needed: "
                "record longer, or under a load that has both"
            )
    features, seconds = _features([step for step, _ in passes]), np.array([s for _, s in passes])
    kept = np.ones(len(seconds), dtype=bool)
    solution = _solve(features, seconds)
    for _ in range(3):
        predicted = features @ solution
        kept = seconds < OUTLIER_FACTOR * predicted
        solution = _solve(features[kept], seconds[kept])
    # What queues feel is the sum of the passes: put it right.
    solution *= seconds[kept].sum() / (features[kept] @ solution).sum()
    predicted = features[kept] @ solution
    errors = np.abs(predicted - seconds[kept]) / seconds[kept]
    report = FitReport(
        steps=int(kept.sum()),
        outliers=int((~kept).sum()),
        error_p50=float(np.percentile(errors, 50)),
        error_p95=float(np.percentile(errors, 95)),
        bias=float(predicted.sum() / seconds[kept].sum() - 1.0),
        predicted_s=predicted.tolist(),
        measured_s=seconds[kept].tolist(),
    )
    coefficients = LinearCoefficients(**dict(zip(_COLUMNS, map(float, solution), strict=True)))
    model = LinearStepTime(
        name,
        coefficients,
        {**(provenance or {}), "fit": report.summary()},
        blocking=blocking,
        variation=_variation(features @ solution, seconds, kept),
    )
    return model, report
