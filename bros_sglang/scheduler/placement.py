"""Tell the allocator whose tokens a batch allocates, so that each class gets slots from its own end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def around_prepare_for_extend(original: Callable[..., Any], batch: Any, *args: Any, **kwargs: Any) -> Any:
    """Declare a prefill batch's requests and new tokens while SGLang allocates for them."""
    with batch.token_to_kv_pool_allocator.declare_batch(
        [req.bros.is_rt for req in batch.reqs], [req.extend_len for req in batch.reqs]
    ):
        return original(batch, *args, **kwargs)


def around_prepare_for_decode(original: Callable[..., Any], batch: Any, *args: Any, **kwargs: Any) -> Any:
    """Declare a decode batch's rows, one token each, while SGLang allocates for them."""
    with batch.token_to_kv_pool_allocator.declare_batch(
        [req.bros.is_rt for req in batch.reqs], [1] * len(batch.reqs)
    ):
        return original(batch, *args, **kwargs)
