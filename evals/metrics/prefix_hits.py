"""Prefix cache hits: the share of prompt tokens that needed no computing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.metrics.run import Run


@metric("prefix_hit_rate")
def prefix_hit_rate(run: Run) -> float | None:
    """Return cached over all prompt tokens, of requests that got a first token."""
    return _hit_rate(run.records)


@metric("rt", "prefix_hit_rate")
def rt_prefix_hit_rate(run: Run) -> float | None:
    """Return the same of RT alone."""
    return _hit_rate(run.rt)


@metric("be", "prefix_hit_rate")
def be_prefix_hit_rate(run: Run) -> float | None:
    """Return the same of BE alone."""
    return _hit_rate(run.be)


def _hit_rate(records: Sequence[RequestRecord]) -> float | None:
    started = [record for record in records if record.first_token_s is not None]
    prompt = sum(record.prompt_tokens for record in started)
    return sum(record.cached_tokens for record in started) / prompt if prompt else None
