"""The prefix tree with class-aware eviction: SGLang's UnifiedRadixCache, whose core (Rust) stays as it is."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from sglang.srt.mem_cache.base_prefix_cache import (
    EvictParams,
    EvictResult,
    InsertParams,
    InsertResult,
    MatchPrefixParams,
)
from sglang.srt.mem_cache.common import release_kv_cache
from sglang.srt.mem_cache.radix_cache import RadixKey
from sglang.srt.mem_cache.registry import create_unified_radix_cache
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

from bros_sglang.memory.class_ledger import ClassLedger, Path
from bros_sglang.memory.eviction import (
    EvictionClock,
    node_priority,
    worth_epochs,
)
from bros_sglang.memory.held_kv import HeldKV
from bros_sglang.memory.two_ended_free_list import TwoEndedFreeList
from bros_sglang.request_class import RequestClass, class_of

logger = logging.getLogger(__name__)

BACKEND_NAME = "bros"
# Queued requests whose prefixes are kept warm per refresh: about 15 us each.
MAX_DEMAND_REQUESTS = 32
_NEVER_HIT_SO_OFTEN = 1 << 30


class CachedTokens(NamedTuple):
    """Tokens in the prefix tree on the device, by class; locked ones included."""

    rt: int
    be: int


class BrosRadixCache(UnifiedRadixCache):  # type: ignore[misc]
    """UnifiedRadixCache that evicts best-effort cache first and holds the KV of preempted requests.

    params: SGLang's CacheInitParams; the eviction policy becomes `priority`. `request.priority` is read by
    nothing here and changed by nothing: the class (`class_of`) decides the priority of tree nodes.
    """

    write_through_threshold: int  # SGLang's, rebound here

    def __init__(self, params: Any, class_of: Callable[[Any], RequestClass] = class_of) -> None:
        if params.eviction_policy not in ("lru", "priority"):
            logger.warning(
                "bros evicts by class, then by worth and recency: --radix-eviction-policy %s is not used",
                params.eviction_policy,
            )
        self._request_class = class_of
        self._inserting: Any = None  # the request whose checkpoint is under way
        self._preempting: Any = None  # the request whose KV is being kept on preemption
        self._ledger = ClassLedger()
        self._kept_tokens = 0
        self.held = HeldKV(self)
        # Sum of `req.kv.cache_protected_len` over best-effort requests that hold a row: the scheduler sets it
        # every pass. Too low, and real-time cache is taken for best-effort cache; too high, the reverse.
        self.be_protected_tokens = 0
        # Real-time cache that an RT allocation spares at the cost of held KV; None: all of it. Set it to what
        # the cache's hit rate makes worth keeping: stale chats are worth less than work in progress.
        self.rt_cache_kept_tokens: int | None = None
        self._raised: dict[str, tuple[int, int]] = {}  # rid -> epoch of its last raise, node it matched
        self._no_values = torch.empty(0, dtype=torch.int64)
        allocator = params.token_to_kv_pool_allocator
        self.eviction_clock = EvictionClock(allocator.size if allocator is not None else 1)
        if isinstance(allocator, TwoEndedFreeList):
            allocator.reclaim = self.reclaim_held
        super().__init__(replace(params, eviction_policy="priority"))

    # -- insertion: the class decides the node priority

    def checkpoint_into_tree(self, req: Any, *, up_to: int, **kwargs: Any) -> None:
        """Publish a request's KV under its class's priority; see the base class."""
        previous, self._inserting = self._inserting, req
        try:
            super().checkpoint_into_tree(req, up_to=up_to, **kwargs)
        finally:
            self._inserting = previous
        if req is self._preempting:
            self._kept_tokens = int(req.kv.cache_protected_len)
        else:
            # It runs again, under its own lock.
            self.held.drop(req.rid)

    def insert(self, params: InsertParams) -> InsertResult:
        """Insert with the priority of the checkpointing request's class; without a request as RT."""
        req, asked = self._inserting, params.priority
        request_class = RequestClass.RT if req is None else self._request_class(req)
        # The base class marks the prompt part of a checkpoint by one above the request's own priority.
        is_prompt = req is None or asked > (req.priority or 0)
        worth = worth_epochs(is_prompt=is_prompt, context_tokens=len(params.key))
        result = self._insert_at(params, node_priority(request_class, self.eviction_clock.epoch, worth))
        if request_class is RequestClass.RT and not self.disable and not result.rotation_tail_declined:
            self._record_rt(params.key, result.last_device_node)
        return result

    def _insert_at(self, params: InsertParams, priority: int) -> InsertResult:
        asked, params.priority = params.priority, priority
        try:
            return super().insert(params)
        finally:
            params.priority = asked

    def _record_rt(self, key: RadixKey, node_id: int) -> None:
        page = self.page_size
        self._ledger.record_rt_path(
            self._path_of(node_id),
            lambda start: tuple(key.token_ids[start : start + page]),
            self._path_of,
        )

    def _path_of(self, node_id: int) -> Path:
        path: Path = self.tree_core.collect_path_info([node_id])[0]
        return path

    # -- preemption: the KV stays, under a lock that gives way from the tail

    def release_preempted(self, req: Any) -> int:
        """Release a preempted request as stock does, but hold what it has computed.

        Returns how many of its tokens (prompt and generated) are held. Call it where stock calls
        `release_kv_cache(req, tree, checkpoint=False)`, before `req.reset_for_retract()`. The lock goes by
        itself when the request has run again, ends or is aborted (`finish`). Models with recurrent state
        (mamba) cannot keep an unfinished request's state and are released as stock.
        """
        if self.disable or self.supports_mamba() or req.skip_radix_cache_insert:
            release_kv_cache(req, self, checkpoint=False)
            return 0
        self._preempting, self._kept_tokens = req, 0
        try:
            with self._no_copies_to_host():
                release_kv_cache(req, self, checkpoint=True)
        finally:
            self._preempting = None
        self.held.hold(req, self._request_class(req), self._kept_tokens)
        return self._kept_tokens

    @contextmanager
    def _no_copies_to_host(self) -> Iterator[None]:
        """Insert without starting HiCache's write-through copies.

        A copy under way pins what it copies: a victim's KV would give no room to anyone before the next pass.
        What is not copied now is when the request has run again.
        """
        threshold, self.write_through_threshold = self.write_through_threshold, _NEVER_HIT_SO_OFTEN
        try:
            yield
        finally:
            self.write_through_threshold = threshold

    def writing_check(self, *args: Any, **kwargs: Any) -> None:
        """Note which copies to host have ended; what they pinned counts as held from now on."""
        super().writing_check(*args, **kwargs)
        self.held.recount()

    @property
    def copies_under_way(self) -> bool:
        """Whether copies to host pin device KV at the moment."""
        return bool(self.ongoing_write_through)

    def release_aborted_request(self, request: Any) -> None:
        """Drop what an aborted request left behind, held KV included; see the base class."""
        self.held.drop(request.rid)
        super().release_aborted_request(request)

    def evict_for_alloc(self, params: EvictParams, **kwargs: Any) -> EvictResult:
        """Evict for an allocation, held KV giving way where it must; see the base class and `make_way`."""
        batch = getattr(self.token_to_kv_pool_allocator, "declared_batch", None)
        # For a paged decode step SGLang asks for a page per row, of which few are used: that is no reason
        # to give up held KV. What is used was made sure of by `check_decode_capacity`.
        self.make_way(
            params.num_tokens,
            rt_tokens=0 if batch is None else batch.rt_tokens,
            all_needed=batch is None or not batch.is_decode,
        )
        return super().evict_for_alloc(params, **kwargs)

    def make_way(self, short_tokens: int, *, rt_tokens: int, all_needed: bool) -> None:
        """Turn held KV into evictable cache for an allocation that is `short_tokens` short.

        For the real-time part of it once no other best-effort cache is left, and real-time cache is down to
        `rt_cache_kept_tokens`; for any part when nothing else is left, unless the shortage is only an
        estimate (`all_needed` off).
        """
        if not self.held.tokens:
            return
        lacking = short_tokens - int(self.evictable_size()) if all_needed else 0
        if rt_tokens:
            spare = self.be_evictable_tokens()
            if self.rt_cache_kept_tokens is not None:
                spare = max(spare, int(self.evictable_size()) - self.rt_cache_kept_tokens)
            lacking = max(lacking, min(short_tokens, rt_tokens) - spare)
        if lacking > 0:
            self.held.give_up(lacking)

    def reclaim_held(self, tokens: int) -> None:
        """Free held KV for an allocation that fails otherwise: the allocator's last resort.

        Where the host pool is too full to take what is pinned there, the pins go as well.
        """
        allocator = self.token_to_kv_pool_allocator
        wanted = allocator.available_size() + tokens
        if self.held.give_up(tokens):
            self.evict(EvictParams(num_tokens=tokens))
        if allocator.available_size() < wanted and self.held.pins.release_all():
            self.evict(EvictParams(num_tokens=wanted - allocator.available_size()))

    def exclusive_tokens(self, req: Any) -> int:
        """Tree tokens that only this running request keeps locked: what its release would make evictable."""
        if req.lock is None:
            return 0
        before = int(self.evictable_size())
        self.unlock(req.lock)
        freed = int(self.evictable_size()) - before
        req.lock = self.lock(req.lock.node)
        return freed

    # -- demand: prefixes that queued requests are about to use stay longer

    def refresh_demand(self, waiting: Sequence[Any]) -> int:
        """Raise the cached prefixes of queued best-effort requests; returns how many were raised.

        waiting: requests in the order they will run; the first MAX_DEMAND_REQUESTS count. Cheap to call on
        every pass: a request's prefix is matched once per tick of the clock.
        """
        if self.disable:
            return 0
        epoch = self.eviction_clock.epoch
        considered = waiting[:MAX_DEMAND_REQUESTS]
        # Those that wait no longer are forgotten; what they raised ages by itself.
        self._raised = {req.rid: self._raised[req.rid] for req in considered if req.rid in self._raised}
        num_raised = 0
        for req in considered:
            if self._raised.get(req.rid, (-1, 0))[0] == epoch:
                continue
            match = self.tree_core.match_prefix(MatchPrefixParams(key=self.request_key(req)))
            self._apply_cache_actions(match.cache_actions)
            node_id = match.last_device_node
            self._raised[req.rid] = (epoch, node_id)
            if match.device_prefix_len:
                sharers = sum(other == node_id for _, other in self._raised.values())
                self._raise(req, int(match.device_prefix_len), waiting=sharers)
                num_raised += 1
        return num_raised

    def request_key(self, req: Any, tokens: int | None = None) -> RadixKey:
        """Return the tree key of a request's first `tokens` tokens, or of all."""
        # A bigram tree counts pairs: n of them span n + 1 tokens.
        limit = None if tokens is None else tokens + int(self.tree_core.is_eagle)
        return RadixKey(
            req.origin_input_ids + req.output_ids,
            extra_key=req.extra_key,
            cache_salt=req.cache_salt,
            limit=limit,
        )

    def _raise(self, req: Any, prefix_tokens: int, *, waiting: int) -> None:
        """Re-insert a prefix that is on the device in full: nothing changes but its nodes' priority."""
        key = self.request_key(req, prefix_tokens)
        if len(self._no_values) < prefix_tokens:
            self._no_values = torch.zeros(2 * prefix_tokens, dtype=torch.int64, device=self.device)
        worth = worth_epochs(is_prompt=True, waiting=waiting, context_tokens=prefix_tokens)
        self._insert_at(
            InsertParams(
                key=key,
                # Not stored: every token is matched, and below prev_prefix_len none is freed as a duplicate.
                value=self._no_values[:prefix_tokens],
                prev_prefix_len=prefix_tokens,
                inserted_len=prefix_tokens,
            ),
            node_priority(RequestClass.BE, self.eviction_clock.epoch, worth),
        )

    # -- eviction: the clock and the class totals

    def _evict(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._evict(*args, **kwargs)
        self.eviction_clock.advance(result.num_tokens_evicted)
        return result

    def _evict_device_leaf(self, node_id: int, tracker: Any) -> Any:
        # With write-back the device copy may outlast this call until `_demote`: counted once, here.
        self._ledger.before_eviction(node_id, self._path_of)
        return super()._evict_device_leaf(node_id, tracker)

    def reset(self) -> None:
        """Drop everything."""
        self._ledger.clear()
        self._raised.clear()
        self.held.clear()
        super().reset()

    def cached_tokens(self) -> CachedTokens:
        """Tokens cached by class. Host integers: no device wait."""
        total = self.evictable_size() + self.protected_size()
        return CachedTokens(self._ledger.rt_tokens, total - self._ledger.rt_tokens)

    def be_evictable_tokens(self) -> int:
        """Best-effort cache that can be evicted now: a lower bound, from host integers alone.

        What is locked beyond best-effort requests and held KV is locked by RT requests, hence real-time and
        not evictable anyway. Needs `be_protected_tokens` to be up to date.
        """
        be_protected_tokens = self.be_protected_tokens + self.held.protected_tokens
        evictable, protected = int(self.evictable_size()), int(self.protected_size())
        rt_locked_at_least = max(0, protected - be_protected_tokens)
        rt_evictable_at_most = max(0, self._ledger.rt_tokens - rt_locked_at_least)
        return max(0, evictable - rt_evictable_at_most)

    # -- host cache: load-backs are placed by class

    def load_back(self, node_id: int, mem_quota: int | None = None, req: Any = None, **kwargs: Any) -> Any:
        """Bring a node back from host memory into slots of the request's class; see the base class."""
        with self._placed_for(req):
            return super().load_back(node_id, mem_quota, req=req, **kwargs)

    @contextmanager
    def _placed_for(self, req: Any) -> Iterator[None]:
        declare = getattr(self.token_to_kv_pool_allocator, "declare_batch", None)
        if declare is None or req is None:
            yield
            return
        with declare([self._request_class(req) is RequestClass.RT], [1]):
            yield


def build_radix_cache(ctx: Any) -> Any:
    """Build the tree cache, in the place of SGLang's `default_radix_cache_factory`.

    Raises SystemExit for models whose KV lives in more than one pool. Other cache back ends (LMCache, FlexKV)
    are refused with the server arguments.
    """
    if ctx.is_hybrid_swa or ctx.is_hybrid_ssm:
        raise SystemExit(
            "error: --policy bros does not support models with sliding-window or state-space layers yet: "
            "their KV lives in more than one pool. Start this model without --policy bros."
        )
    return create_unified_radix_cache(ctx, cache_class=BrosRadixCache)
