"""Requests and tokens per second.

Tokens are prompt and output tokens together, cached prompt tokens included: what the client got done. A
prompt counts when the first token comes, output tokens evenly between the first token and the last, each
as far as it falls into the measured part, so that long requests across its edges do not distort it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.metrics.run import Run


def prompt_tokens_between(record: RequestRecord, start_s: float, end_s: float) -> int:
    """Return the prompt's tokens where its first token came between the two times, else 0."""
    came_s = record.first_token_s
    return record.prompt_tokens if came_s is not None and start_s <= came_s < end_s else 0


def output_tokens_between(record: RequestRecord, start_s: float, end_s: float) -> float:
    """Return how many output tokens came between the two times, spread evenly from the first to the last."""
    first_s, last_s = record.first_token_s, record.last_token_s
    if first_s is None or last_s is None:
        return 0.0
    if last_s <= first_s:
        return float(record.generated_tokens if start_s <= first_s < end_s else 0)
    inside_s = min(last_s, end_s) - max(first_s, start_s)
    rest = (record.generated_tokens - 1) * max(0.0, inside_s) / (last_s - first_s)
    return rest + (1.0 if start_s <= first_s < end_s else 0.0)


def _tokens_per_s(run: Run, records: Iterable[RequestRecord]) -> dict[str, float]:
    start_s, end_s = run.facts.start_s, run.facts.end_s
    prompt, output = 0, 0.0
    for record in records:
        prompt += prompt_tokens_between(record, start_s, end_s)
        output += output_tokens_between(record, start_s, end_s)
    return {"tokens_per_s": (prompt + output) / run.seconds, "output_tokens_per_s": output / run.seconds}


def _finished_per_s(run: Run, records: Iterable[RequestRecord]) -> float:
    start_s, end_s = run.facts.start_s, run.facts.end_s
    ended = sum(
        record.finished and record.finish_s is not None and start_s <= record.finish_s < end_s
        for record in records
    )
    return ended / run.seconds


@metric("be", "requests_per_s")
def be_requests_per_s(run: Run) -> float:
    """Return the BE requests that ended in the measured part, per second."""
    return _finished_per_s(run, run.be)


@metric("rt", "requests_per_s")
def rt_requests_per_s(run: Run) -> float:
    """Return the RT requests that arrived and ended in the measured part, per second."""
    return _finished_per_s(run, run.rt)


@metric("be")
def be_tokens_per_s(run: Run) -> dict[str, float]:
    """Return BE tokens per second, and the output tokens among them."""
    return _tokens_per_s(run, run.be)


@metric("rt")
def rt_tokens_per_s(run: Run) -> dict[str, float]:
    """Return RT tokens per second, and the output tokens among them."""
    return _tokens_per_s(run, run.rt)
