"""The forward pass's place: count what the batch asks for, let the virtual device take its time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bros_sglang.evals.step_time.batch import prefill_rows, step_of
from bros_sglang.evals.workloads.request import FIRST_ORDINARY_TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.evals.replay.clock import VirtualClock
    from bros_sglang.evals.step_time.step import Step, StepTimeModel


@dataclass(slots=True)
class PassCounts:
    """What all passes of a run did; tokens unless said otherwise."""

    passes: Counter[str] = field(default_factory=Counter)  # by forward mode
    prefill_tokens: int = 0
    recomputed_tokens: int = 0  # KV that the same request had computed before
    loaded_back_tokens: int = 0
    device_busy_s: float = 0.0


class VirtualForward:
    """Stands for `tp_worker.forward_batch_generation` (the instance attribute).

    Next tokens are arbitrary but fixed, and end-of-sequence exactly at the traced output length: admission
    sees only the client's limit, as it does live.
    """

    def __init__(
        self,
        clock: VirtualClock,
        step_time: StepTimeModel,
        *,
        cpu_s_per_pass: float,
        blocking: bool,
        last_seq_len: dict[str, int],
        vocab_size: int,
        eos_token: int,
        real: Callable[..., Any] | None = None,
        observer: Callable[[Any, Step, float], None] | None = None,
    ) -> None:
        """Set up.

        `last_seq_len` gives, per request id, the sequence length (prompt and output so far) at which the
        next token is end-of-sequence. With `real`, the true model computes underneath (its tokens are
        dropped). `observer(batch, step, seconds)` sees every pass.
        """
        from sglang.srt.layers.logits_processor import LogitsProcessorOutput
        from sglang.srt.managers.utils import GenerationBatchResult

        self._result_type, self._logits_type = GenerationBatchResult, LogitsProcessorOutput
        self._clock, self._step_time = clock, step_time
        self._cpu_s, self._blocking = cpu_s_per_pass, blocking
        self._last_seq_len = last_seq_len
        self._ordinary_tokens, self._eos_token = vocab_size - FIRST_ORDINARY_TOKEN, eos_token
        self._computed: dict[str, int] = {}  # request id -> KV positions computed so far
        self._real, self._observer = real, observer
        self.pending_load_back_tokens = 0
        self.counts = PassCounts()

    def __call__(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one pass in virtual time and return what the model's worker would."""
        if self._real is not None:
            self._real(batch, *args, **kwargs)
        step = self._step_of(batch)
        seconds = self._step_time.step_s(step)
        clock = self._clock
        clock.now_s += self._cpu_s
        clock.run_on_device(seconds)
        if self._blocking:
            clock.advance_to(clock.free_s)
        self.counts.device_busy_s += seconds
        if self._observer is not None:
            self._observer(batch, step, seconds)
        return self._result_type(
            logits_output=self._logits_type(next_token_logits=None), next_token_ids=self._next_tokens(batch)
        )

    def _step_of(self, batch: Any) -> Step:
        counts, step = self.counts, step_of(batch)
        step.load_back_tokens, self.pending_load_back_tokens = self.pending_load_back_tokens, 0
        counts.loaded_back_tokens += step.load_back_tokens
        if batch.forward_mode.is_decode():
            counts.passes["decode"] += 1
            return step
        counts.passes["mixed" if batch.forward_mode.is_mixed() else "prefill"] += 1
        counts.prefill_tokens += step.prefill_tokens
        for req, prefix, new in prefill_rows(batch):
            end = prefix + new
            before = self._computed.get(req.rid, 0)
            if before and req.output_ids:  # back after a preemption: its output's KV had been computed too
                before = max(before, len(req.origin_input_ids) + len(req.output_ids) - 1)
            counts.recomputed_tokens += max(0, min(before, end) - prefix)
            if end > before:
                self._computed[req.rid] = end
        return step

    def _next_tokens(self, batch: Any) -> Any:
        import torch

        lengths = batch.seq_lens_cpu.numpy()
        last = self._last_seq_len
        ends = np.fromiter((last[req.rid] for req in batch.reqs), dtype=np.int64, count=len(batch.reqs))
        ordinary = FIRST_ORDINARY_TOKEN + lengths * 31 % self._ordinary_tokens
        return torch.from_numpy(np.where(lengths >= ends, self._eos_token, ordinary))
