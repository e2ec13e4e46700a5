"""The run's token books: what came in came out or is in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bros_sglang.evals.metrics.registry import metric

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.run import Run


@metric("tokens")
def tokens(run: Run) -> dict[str, Any]:
    """Return the books over all requests of the run, warm-up included; prompt and output tokens together.

    `arrived` is what the clients asked for, `served` what finished requests got, `in_flight` what unfinished
    ones asked for, `failed` what failed ones asked for. `conserved` says that the last three add up to
    the first: false where a finished request got more or fewer tokens than it asked for.
    """
    arrived = served = in_flight = failed = hit = 0
    for record in run.records:
        asked = record.prompt_tokens + record.output_tokens
        arrived += asked
        hit += record.cached_tokens
        if record.error is not None:
            failed += asked
        elif record.finish_s is None:
            in_flight += asked
        else:
            served += record.prompt_tokens + record.generated_tokens
    return {
        "arrived": arrived,
        "served": served,
        "in_flight": in_flight,
        "failed": failed,
        "recomputed": run.facts.recomputed_tokens,
        "loaded_back": run.facts.loaded_back_tokens,
        "prefix_hit": hit,
        "conserved": arrived == served + in_flight + failed,
    }
