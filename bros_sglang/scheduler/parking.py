"""Keep decode rows out of a step, with their KV where it is, and take them back later."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.managers.schedule_batch import ScheduleBatch
from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo
from sglang.srt.utils import is_pin_memory_available


def can_park(req: Any) -> bool:
    """Say whether a row can be rebuilt from its request alone.

    Penalties and grammars keep state per row in the batch's sampling information, beams keep rows of their
    own; such requests stay in the batch.
    """
    params = req.sampling_params
    return (
        req.beam_group is None
        and req.grammar is None
        and not req.return_logprob
        and req.multimodal_inputs is None
        and not params.frequency_penalty
        and not params.presence_penalty
        and params.repetition_penalty == 1.0
        and params.min_new_tokens == 0
        and req.to_finish is None
    )


def split_rows(batch: Any, indices: list[int]) -> Any:
    """Move rows of a decode batch to a new batch and return it; `batch` keeps the others.

    Indices are host-side; the row tensors are gathered on the device, so nothing waits for it. The rows'
    pending tokens stay in SGLang's relay buffer, which is keyed by request slot
    (`sglang/srt/managers/overlap_utils.py:resolve_forward_inputs`); built after
    `Scheduler._build_hisparse_decode_batch` (0.5.23).
    """
    reqs = [batch.reqs[i] for i in indices]
    parked = ScheduleBatch.init_new(
        reqs=reqs,
        req_to_token_pool=batch.req_to_token_pool,
        token_to_kv_pool_allocator=batch.token_to_kv_pool_allocator,
        tree_cache=batch.tree_cache,
        model_config=batch.model_config,
        enable_overlap=batch.enable_overlap,
        spec_algorithm=batch.spec_algorithm,
    )

    # Pinned, as in `ScheduleBatch.filter_batch`: an upload from pageable memory holds the host up.
    pin = is_pin_memory_available(batch.device)
    host = torch.tensor(indices, dtype=torch.int64, pin_memory=pin)
    device = host.to(batch.seq_lens.device, non_blocking=True)
    parked.req_pool_indices = batch.req_pool_indices[device]
    parked.req_pool_indices_cpu = batch.req_pool_indices_cpu[host]
    parked.seq_lens = batch.seq_lens[device]
    parked.seq_lens_cpu = batch.seq_lens_cpu[host]
    parked.orig_seq_lens = batch.orig_seq_lens[device]
    parked.seq_lens_sum = None
    parked.input_ids = None
    if batch.multimodal_inputs is not None:
        parked.multimodal_inputs = [batch.multimodal_inputs[i] for i in indices]
    parked.sampling_info = SamplingBatchInfo.from_schedule_batch(parked, batch.model_config.vocab_size)
    gone = set(indices)
    batch.filter_batch(keep_indices=[i for i in range(len(batch.reqs)) if i not in gone])
    return parked
