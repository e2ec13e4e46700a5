"""Hierarchical cache (`--enable-hierarchical-cache`) on the CPU: two functions that only GPUs have.

SGLang copies KV between device and host with compiled kernels and pins the host memory. Without a device
both are plain tensor operations. Use with `--hicache-io-backend direct --hicache-mem-layout layer_first`.
"""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.mem_cache.pool_host import common, mha


def _allocate_unpinned(
    dims: tuple[int, ...],
    dtype: torch.dtype,
    device: str,
    pin_memory: bool,  # noqa: FBT001 (SGLang's signature)
    allocator: Any,
    registration_granularity_bytes: int | None = None,
) -> torch.Tensor:
    """Allocate a host buffer without pinning it (signature: `pool_host/common.py:alloc_with_pin_memory`)."""
    del pin_memory, allocator, registration_granularity_bytes
    return torch.empty(dims, dtype=dtype, device=device)


def _transfer_kv_direct(
    *,
    src_layers: list[torch.Tensor],
    dst_layers: list[torch.Tensor],
    src_indices: torch.Tensor,
    dst_indices: torch.Tensor,
    page_size: int,
) -> None:
    """Copy the slots `src_indices` of every source layer to `dst_indices` of its destination layer."""
    del page_size  # Indices name single slots, whatever the page size.
    for source, destination in zip(src_layers, dst_layers, strict=True):
        destination[dst_indices] = source[src_indices]


def repair() -> None:
    """Install both functions; nothing else in SGLang is touched."""
    common.ALLOC_MEMORY_FUNCS["cpu"] = _allocate_unpinned
    mha.transfer_kv_direct = _transfer_kv_direct
