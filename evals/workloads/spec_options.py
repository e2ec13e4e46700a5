"""The KEY=VALUE part of a workload spec: what keys there are, and their values by type."""

from __future__ import annotations

from dataclasses import dataclass

from bros_sglang.evals.workloads.errors import WorkloadError

KEYS = {
    "rate": "requests per second",
    "arrivals": "poisson, burst, uniform (a trickle), waves, at-once (a corpus) or trace (its own times)",
    "outstanding": "closed loop: this many requests at any time",
    "burst": "requests per burst",
    "low": "requests per second between waves",
    "period": "seconds from wave to wave",
    "duty": "share of the period that is a wave",
    "n": "number of requests",
    "seconds": "how long requests arrive",
    "speed": "times faster than the trace's own times",
    "start": "seconds of the trace to skip",
    "scale": "divide all lengths by this",
    "limit": "the client's max_new_tokens: a number, or exact for the true length",
    "prefix": "tokens of shared prefix before each prompt",
    "prefixes": "number of different shared prefixes",
    "max_context": "leave out requests of more tokens than this",
    "prompt": "uniform: LOW-HIGH prompt tokens",
    "output": "uniform: LOW-HIGH output tokens",
    "seed": "seed of lengths and arrivals",
    "ttft_ms": "target that each request carries",
    "tpot_ms": "target that each request carries",
    "file": "trace file",
}


@dataclass(frozen=True)
class Options:
    """The KEY=VALUE part of a spec, read by type; errors name the spec."""

    spec: str
    values: dict[str, str]

    def text(self, key: str) -> str | None:
        """Return a value as it was written."""
        return self.values.get(key)

    def number(self, key: str, default: float | None = None, *, zero: bool = False) -> float | None:
        """Return a value as a positive (or with `zero` non-negative) number."""
        raw = self.values.get(key)
        if raw is None:
            return default
        try:
            value = float(raw)
        except ValueError:
            raise WorkloadError(f"{self.spec!r}: {key}={raw!r} is not a number ({KEYS[key]})") from None
        if not (value > 0 or (zero and value == 0)) or value == float("inf"):
            raise WorkloadError(
                f"{self.spec!r}: {key}={raw} must be {'0 or more' if zero else 'positive'} ({KEYS[key]})"
            )
        return value

    def whole(self, key: str, default: int | None = None, *, zero: bool = False) -> int | None:
        """Return a value as a positive whole number."""
        value = self.number(key, None, zero=zero)
        if value is None:
            return default
        if value != int(value):
            raise WorkloadError(
                f"{self.spec!r}: {key}={self.values[key]} must be a whole number ({KEYS[key]})"
            )
        return int(value)

    def bounds(self, key: str, default: tuple[int, int]) -> tuple[int, int]:
        """Return a LOW-HIGH pair."""
        raw = self.values.get(key)
        if raw is None:
            return default
        low, _, high = raw.partition("-")
        if not low.isdigit() or not (high or low).isdigit() or not 1 <= int(low) <= int(high or low):
            raise WorkloadError(f"{self.spec!r}: {key}={raw!r} must be LOW-HIGH, such as 128-256")
        return int(low), int(high or low)
