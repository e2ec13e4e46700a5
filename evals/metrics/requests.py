"""How many requests there were, and how they ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.metrics.run import Run


def _counts(records: Sequence[RequestRecord]) -> dict[str, int]:
    return {
        "requests": len(records),
        "finished": sum(record.finished for record in records),
        "in_flight": sum(record.in_flight for record in records),
        "failed": sum(record.error is not None for record in records),
    }


@metric("rt")
def rt_requests(run: Run) -> dict[str, int]:
    """Count the RT requests that arrived in the measured part."""
    return _counts(run.rt)


@metric("be")
def be_requests(run: Run) -> dict[str, int]:
    """Count the BE requests that were in the system in the measured part."""
    return _counts(run.be)
