"""From what the scheduler gave out to the records that every metric takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.metrics.record import RequestRecord

if TYPE_CHECKING:
    from bros_sglang.evals.replay.log import RequestLog


def to_record(log: RequestLog) -> RequestRecord:
    """Return the record of one request; deadlines as in `metrics.record.TokenTimes`."""
    request = log.request
    token_s = np.frombuffer(log.token_s, dtype=np.float64)
    generated = len(token_s)
    return RequestRecord(
        rid=request.rid,
        request_class=request.request_class,
        arrival_s=log.arrival_s,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        generated_tokens=generated,
        first_token_s=float(token_s[0]) if generated else None,
        last_token_s=float(token_s[-1]) if generated else None,
        finish_s=log.finish_s,
        max_gap_s=float(np.diff(token_s).max()) if generated > 1 else None,
        on_time_tokens=_on_time(log, token_s),
        cached_tokens=log.cached_tokens,
        preemptions=log.preemptions,
        ttft_ms=request.ttft_ms,
        tpot_ms=request.tpot_ms,
        error=log.error,
    )


def _on_time(log: RequestLog, token_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> int | None:
    ttft_ms, tpot_ms = log.request.ttft_ms, log.request.tpot_ms
    if ttft_ms is None and tpot_ms is None:
        return None
    if len(token_s) == 0:
        return 0
    index = np.arange(len(token_s))
    if ttft_ms is None:
        due_s = token_s[0] + index * ((tpot_ms or 0.0) / 1000.0)
    elif tpot_ms is None:
        due_s = np.where(index == 0, log.arrival_s + ttft_ms / 1000.0, np.inf)
    else:
        due_s = log.arrival_s + ttft_ms / 1000.0 + index * (tpot_ms / 1000.0)
    return int((token_s <= due_s).sum())
