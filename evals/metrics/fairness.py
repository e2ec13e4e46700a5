"""Jain's fairness index within BE (Jain, Chiu, Hawe 1984): 1 where all are served alike, 1/n where one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.metrics.run import Run


def jain_index(shares: Sequence[float]) -> float | None:
    """Return (Σx)² / (n Σx²), or None for no shares or none above 0."""
    largest = max(shares, default=0.0)
    if largest <= 0:
        return None
    scaled = [share / largest for share in shares]  # the index has no unit; squares must not overflow
    return sum(scaled) ** 2 / (len(scaled) * sum(share * share for share in scaled))


@metric("be", "jain_fairness")
def be_jain_fairness(run: Run) -> float | None:
    """Return the index over each BE request's tokens per second of its stay; one still waiting has 0."""
    shares = []
    for record in run.be:
        if record.error is not None:
            continue
        stay_s = (record.finish_s if record.finish_s is not None else run.facts.end_s) - record.arrival_s
        served = record.generated_tokens + (record.prompt_tokens if record.first_token_s is not None else 0)
        if stay_s > 0 and (record.finished or stay_s >= 1.0):  # a newcomer has not been treated any way yet
            shares.append(served / stay_s)
    return jain_index(shares)
