"""What lies between a client and the scheduler: HTTP, tokenizer and detokenizer, both ways, per request.

It is no constant: tokenizer process, detokenizer and client share a core, and wait for each other. So each
request draws its way in, and the way back of its first and of its last token, from what was measured.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bros_sglang.evals.workloads.request import WorkloadRequest

QUANTILES = 400  # the middles of as many equal shares: what is kept of a distribution
LEAST_TIMES = 20  # fewer say nothing about a distribution


class Ways(NamedTuple):
    """One request's seconds."""

    in_s: float  # from the client's sending to the scheduler's socket
    back_s: float  # from the scheduler to the client: all tokens but the last
    last_s: float  # the same for the last one


@dataclass(frozen=True, slots=True)
class ClassFrontend:
    """One class's times in seconds, each as likely as the others, ascending."""

    in_s: tuple[float, ...]
    back_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Frontend:
    """Measured ways per class (`rt`, `be`), or the same constant way in for all."""

    constant_s: float = 0.0
    by_class: tuple[tuple[str, ClassFrontend], ...] = ()

    def ways(self, request: WorkloadRequest, seed: int = 0) -> Ways:
        """Return what a request's messages take; the same for the same request and seed."""
        for name, measured in self.by_class:
            if name == request.request_class:
                return _drawn(measured, f"{seed}/{request.rid}")
        return Ways(self.constant_s, 0.0, 0.0)

    def describe(self) -> dict[str, Any]:
        """Return the quantiles, JSON-ready."""
        classes = {name: {"in_s": list(m.in_s), "back_s": list(m.back_s)} for name, m in self.by_class}
        return {"constant_s": self.constant_s, "classes": classes}

    @classmethod
    def from_json(cls, data: Any) -> Frontend:
        """Read what `describe` returned. Raises ValueError where it is something else."""
        try:
            by_class = tuple(
                (str(name), ClassFrontend(_ascending(one["in_s"]), _ascending(one["back_s"])))
                for name, one in data["classes"].items()
            )
            constant_s = float(data["constant_s"])
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no ways to the scheduler and back ({error!r} is missing or wrong)") from error
        if not 0 <= constant_s < 60:
            raise ValueError(f"the way to the scheduler must be seconds, 0 or more, not {constant_s!r}")
        return cls(constant_s, by_class)


def _ascending(values: Any) -> tuple[float, ...]:
    times = tuple(float(value) for value in values)
    if not times or times != tuple(sorted(times)) or not 0 <= times[0] <= times[-1] < 60:
        raise ValueError("times of a way must be quantiles in seconds, ascending, 0 or more")
    return times


def _drawn(measured: ClassFrontend, key: str) -> Ways:
    digest = hashlib.blake2b(key.encode(), digest_size=12).digest()
    draws = (int.from_bytes(digest[at : at + 4], "little") for at in (0, 4, 8))
    sources = (measured.in_s, measured.back_s, measured.back_s)
    return Ways(*(times[draw % len(times)] for draw, times in zip(draws, sources, strict=True)))


def quantiles(times_s: Iterable[float]) -> tuple[float, ...] | None:
    """Return the quantiles of measured times, negative ones (rounding) taken as 0; None for too few."""
    values = np.maximum(np.fromiter(times_s, dtype=np.float64), 0.0)
    if len(values) < LEAST_TIMES:
        return None
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return tuple(round(float(time_s), 6) for time_s in np.quantile(values, shares))
