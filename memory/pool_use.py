"""Who uses the KV pool, by class: sums of host integers, cheap enough for every pass and for metrics."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from bros_sglang.memory.radix_cache import BrosRadixCache
from bros_sglang.request_class import RequestClass, class_of


class PoolUse(NamedTuple):
    """KV tokens. The first five add up to the pool; `held` and `be_evictable` are parts of `be_cached`."""

    free: int
    rt_running: int  # of running requests, outside the tree
    be_running: int
    rt_cached: int  # in the tree, locked or not
    be_cached: int
    held: int  # what preempted requests hold: theirs until real-time needs it
    be_evictable: int  # lower bound

    @property
    def total(self) -> int:
        """The pool's size, if the books balance."""
        return self.free + self.rt_running + self.be_running + self.rt_cached + self.be_cached


def private_tokens(req: Any, page_size: int) -> int:
    """KV that a request holds outside the tree, in whole pages (SGLang's `kv_private_tokens`)."""
    allocated = -(-req.kv.kv_allocated_len // page_size) * page_size
    return int(allocated - req.kv.cache_protected_len)


def pool_use(allocator: Any, tree: BrosRadixCache, running: Iterable[Any]) -> PoolUse:
    """Count. running: every request that holds a row: running, parked, mid-prefill, in flight; each once.

    Waits for nothing on the device.
    """
    private = {RequestClass.RT: 0, RequestClass.BE: 0}
    for req in running:
        private[class_of(req)] += private_tokens(req, allocator.page_size)
    cached = tree.cached_tokens()
    return PoolUse(
        free=int(allocator.available_size()),
        rt_running=private[RequestClass.RT],
        be_running=private[RequestClass.BE],
        rt_cached=cached.rt,
        be_cached=cached.be,
        held=tree.held.tokens,
        be_evictable=tree.be_evictable_tokens(),
    )
