"""A step-time model that is a weighted sum of the counts of a pass.

The form that the paper fits (BROS, arXiv 2504.09590, section 4.3): prefill and decode each have a constant,
a cost per new token, per context token, and for prefill per product of both (`attention_pairs`).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.step_time.frontend import Frontend

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.evals.step_time.step import Step

FILE_KIND = "bros-step-time-linear"


class StepTimeFileError(ValueError):
    """A step-time file that cannot be read; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class LinearCoefficients:
    """Seconds per unit; the names say the unit."""

    prefill_pass_s: float = 0.0  # a pass with at least one prefill row
    decode_pass_s: float = 0.0  # a pass with decode rows alone
    prefill_token_s: float = 0.0
    prefill_row_s: float = 0.0
    prefill_context_token_s: float = 0.0
    attention_pair_s: float = 0.0
    decode_row_s: float = 0.0
    decode_context_token_s: float = 0.0
    load_back_token_s: float = 0.0  # runs beside the computation: the pass takes the longer of both


@dataclass(frozen=True, slots=True)
class Variation:
    """How measured passes differ from what a model says of them, for `jitter.MeasuredVariation`."""

    factors: tuple[float, ...] = ()  # measured over predicted, each as likely as the others; their mean is 1
    stalls_per_s: float = 0.0  # pauses of the machine itself, per second that passes take
    stalls_s: tuple[float, ...] = ()  # by how much those passes took longer, each as likely as the others

    def __post_init__(self) -> None:
        if self.factors and not 0 < min(self.factors) <= max(self.factors) < 1e3:
            raise ValueError("factors must be above 0")
        if not 0 <= self.stalls_per_s < 1e3 or (self.stalls_per_s and not self.stalls_s):
            raise ValueError("stalls_per_s must be 0 or more, with stalls_s beside it")
        if self.stalls_s and not 0 <= min(self.stalls_s) <= max(self.stalls_s) < 1e4:
            raise ValueError("stalls_s must be seconds, 0 or more")

    @classmethod
    def from_json(cls, data: Any) -> Variation:
        """Read what `asdict` gives. Raises ValueError where it is something else."""
        try:
            return cls(
                tuple(float(value) for value in data["factors"]),
                float(data["stalls_per_s"]),
                tuple(float(value) for value in data["stalls_s"]),
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"no variation of passes ({error!r} is missing or wrong)") from error


class LinearStepTime:
    """Weighted sum of counts; `load_back_token_s` overlaps with the computation."""

    def __init__(
        self,
        name: str,
        coefficients: LinearCoefficients,
        provenance: dict[str, Any] | None = None,
        *,
        blocking: bool = False,
        frontend: Frontend | None = None,
        variation: Variation | None = None,
    ) -> None:
        """Set up.

        `blocking` says that the device is the CPU itself: launching a pass returns when it is done.
        `frontend` is what lies between client and scheduler. `variation` says how
        measured passes differ from this model, which itself does not vary.
        """
        self.name = name
        self.coefficients = coefficients
        self.provenance = provenance or {}
        self.blocking = blocking
        self.frontend = frontend or Frontend()
        self.variation = variation or Variation()

    def step_s(self, step: Step) -> float:
        """Return the seconds that the device needs for `step`."""
        c = self.coefficients
        if step.prefill_rows:
            compute_s = (
                c.prefill_pass_s
                + c.prefill_row_s * step.prefill_rows
                + c.prefill_token_s * step.prefill_tokens
                + c.prefill_context_token_s * step.prefill_context_tokens
                + c.attention_pair_s * step.attention_pairs
            )
        else:
            compute_s = c.decode_pass_s
        compute_s += c.decode_row_s * step.decode_rows + c.decode_context_token_s * step.decode_context_tokens
        return max(compute_s, c.load_back_token_s * step.load_back_tokens, 1e-6)

    def describe(self) -> dict[str, Any]:
        """Return the constants, JSON-ready."""
        return {
            "kind": FILE_KIND,
            "name": self.name,
            "coefficients": asdict(self.coefficients),
            "blocking": self.blocking,
            "frontend": self.frontend.describe(),
            "variation": asdict(self.variation),
            "provenance": self.provenance,
        }

    def save(self, path: Path) -> None:
        """Write the model as JSON that `load` reads."""
        path.write_text(json.dumps(self.describe(), indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> LinearStepTime:
        """Read a model that `save` wrote.

        Raises:
            StepTimeFileError: no such file, no JSON, or coefficients that are unknown, negative or all zero.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise StepTimeFileError(f"{path}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise StepTimeFileError(f"{path}: not JSON ({error})") from error
        if not isinstance(data, dict) or data.get("kind") != FILE_KIND:
            raise StepTimeFileError(f'{path}: no step-time file: it needs "kind": {FILE_KIND!r}')
        known = {field.name for field in fields(LinearCoefficients)}
        given = data.get("coefficients")
        if not isinstance(given, dict) or not given:
            raise StepTimeFileError(f'{path}: "coefficients" must be an object with some of {sorted(known)}')
        for key, value in given.items():
            if key not in known:
                raise StepTimeFileError(f"{path}: unknown coefficient {key!r}; known are {sorted(known)}")
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e3:
                raise StepTimeFileError(
                    f"{path}: coefficient {key!r} must be seconds, 0 or more, not {value!r}"
                )
        if not any(given.values()):
            raise StepTimeFileError(f"{path}: every coefficient is zero: a pass would take no time")
        provenance = data.get("provenance")
        try:
            frontend = Frontend.from_json(data["frontend"]) if "frontend" in data else Frontend()
            variation = Variation.from_json(data["variation"]) if "variation" in data else Variation()
        except ValueError as error:
            raise StepTimeFileError(f"{path}: {error}") from error
        return cls(
            str(data.get("name") or path.stem),
            LinearCoefficients(**{key: float(value) for key, value in given.items()}),
            provenance if isinstance(provenance, dict) else {},
            blocking=data.get("blocking") is True,
            frontend=frontend,
            variation=variation,
        )
