"""Read from a batch of SGLang's what its forward pass has to do."""

from __future__ import annotations

from typing import Any

from bros_sglang.evals.step_time.step import Step


def prefill_rows(batch: Any) -> list[tuple[Any, int, int]]:
    """Return (request, prefix tokens, new tokens) of each prefill row of an extend or mixed batch.

    A mixed batch lists its decode rows last (`ScheduleBatch.mix_with_running`), each with one new token.
    """
    decode_rows = len(batch.decoding_reqs) if batch.forward_mode.is_mixed() else 0
    end = len(batch.reqs) - decode_rows
    return list(zip(batch.reqs[:end], batch.prefix_lens[:end], batch.extend_lens[:end], strict=True))


def step_of(batch: Any) -> Step:
    """Return the counts of a batch that is about to run, from host-side numbers alone."""
    step = Step()
    if batch.forward_mode.is_decode():
        step.decode_rows = len(batch.reqs)
        step.decode_context_tokens = int(batch.seq_lens_cpu.sum())
        return step
    rows = prefill_rows(batch)
    for _, prefix, new in rows:
        step.add_prefill(new, prefix)
    step.decode_rows = len(batch.reqs) - len(rows)
    if step.decode_rows:
        step.decode_context_tokens = int(batch.seq_lens_cpu[len(rows) :].sum())
    return step
