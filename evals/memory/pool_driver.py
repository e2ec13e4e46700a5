"""Drives SGLang's real pools, allocator and prefix tree through request lives, without a model.

What it calls, in which order and with which arguments is what the scheduler does between two forward
passes: match, lock, allocate for the batch, write the row, checkpoint after prefill, one slot per decode
step, release at the end. Only the KV itself is not computed.
"""

from array import array
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Literal

import torch
from sglang.srt.managers.schedule_batch import FINISH_LENGTH, Req
from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator
from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.common import checkpoint_kv_cache, evict_from_tree_cache, release_kv_cache
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.mem_cache.unified_cache.component_type import ComponentType
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache
from sglang.srt.runtime_context import get_spec, publish
from sglang.srt.sampling.sampling_params import SamplingParams
from sglang.srt.server_args import ServerArgs

from bros_sglang.memory.allocator import BidirectionalTokenToKVPoolAllocator
from bros_sglang.memory.paged_allocator import BidirectionalPagedTokenToKVPoolAllocator
from bros_sglang.memory.radix_cache import BrosRadixCache
from bros_sglang.request_class import RequestClass, class_of

Variant = Literal["stock", "bros"]
VARIANTS: tuple[Variant, ...] = ("stock", "bros")


class OutOfKVError(RuntimeError):
    """The pool holds too little free and evictable KV for what was asked."""


def publish_minimal_config() -> None:
    """SGLang's request code reads its process-wide configuration: state the defaults, unless it is there."""
    try:
        get_spec()
    except ValueError:
        publish(ServerArgs(model_path="none", device="cpu", skip_tokenizer_init=True), role="scheduler")


def make_allocator(
    variant: Variant, size: int, page_size: int, *, device: str = "cpu", kvcache: Any = None
) -> Any:
    """Build the allocator that SGLang (`stock`) or this project (`bros`) would use."""
    if page_size == 1:
        token = TokenToKVPoolAllocator if variant == "stock" else BidirectionalTokenToKVPoolAllocator
        return token(size, torch.float16, device, kvcache, need_sort=False)
    paged = PagedTokenToKVPoolAllocator if variant == "stock" else BidirectionalPagedTokenToKVPoolAllocator
    return paged(size, page_size, torch.float16, device, kvcache, need_sort=False)


class PoolDriver:
    """One engine's KV memory. `allocator` and `tree` choose stock's class or this project's, separately."""

    def __init__(
        self,
        size: int,
        *,
        page_size: int = 1,
        max_requests: int = 256,
        max_context: int = 16_384,
        allocator: Variant = "bros",
        tree: Variant = "bros",
        tree_core: str | None = None,
        stock_eviction: str = "lru",
        device: str = "cpu",
    ) -> None:
        publish_minimal_config()
        self.page_size = page_size
        self.rows = ReqToTokenPool(max_requests, max_context, device, enable_memory_saver=False)
        self.allocator = make_allocator(allocator, size, page_size, device=device)
        params = CacheInitParams(
            disable=False,
            req_to_token_pool=self.rows,
            token_to_kv_pool_allocator=self.allocator,
            page_size=page_size,
            eviction_policy=stock_eviction,
            tree_components=(ComponentType.FULL,),
            tree_core_backend=tree_core,
        )
        self.tree = BrosRadixCache(params) if tree == "bros" else UnifiedRadixCache(params)
        self.device = device

    def request(
        self, rid: str, request_class: RequestClass, prompt: Sequence[int], *, priority: int | None = None
    ) -> Req:
        """Make a request; it holds nothing yet."""
        req = Req(rid, "", array("q", prompt), SamplingParams(max_new_tokens=1 << 20), priority=priority)
        req.bros = SimpleNamespace(request_class=request_class)
        return req

    def room(self, request_class: RequestClass = RequestClass.BE) -> int:
        """Free and evictable tokens; for real-time requests also what preempted ones hold."""
        held = 0
        if request_class is RequestClass.RT and isinstance(self.tree, BrosRadixCache):
            held = self.tree.held.tokens
        return int(self.allocator.available_size() + self.tree.evictable_size()) + held

    def prefill(self, reqs: Sequence[Req], chunk_tokens: int | None = None) -> list[int]:
        """Run one prefill pass (a chunk of each request when given); returns the tokens computed for each.

        Raises OutOfKVError, with nothing changed but locks given back, when there is no room.
        """
        for req in reqs:
            if not req.kv.holds_kv:
                req.init_next_round_input(self.tree)
                req.lock = self.tree.lock(req.last_node)
            else:
                req.refresh_fill_ids()
            total = len(req.full_untruncated_fill_ids)
            req.extend_end = total if chunk_tokens is None else min(total, req.prefix_len + chunk_tokens)
        counts = [req.extend_end - req.prefix_len for req in reqs]
        needed = sum(counts) + len(reqs) * (self.page_size if self.page_size > 1 else 0)
        prefixes = [self._prefix(req) for req in reqs]
        slots = None
        if needed <= self.room(min(class_of(req) for req in reqs)):  # "be" < "rt"
            with self._declared(reqs, counts):
                evict_from_tree_cache(self.tree, needed)
                slots = self._alloc_extend(reqs, prefixes, counts)
        if slots is None:
            for req in reqs:
                if not req.kv.holds_kv:
                    self.tree.unlock(req.lock)
                    req.lock = None
            raise OutOfKVError(f"{sum(counts)} tokens asked, {self.room()} free or evictable")
        self.rows.alloc(list(reqs))
        for req, prefix, part in zip(reqs, prefixes, slots.split(counts), strict=True):
            row = req.kv.req_pool_idx
            self.rows.write((row, slice(0, req.prefix_len)), prefix.to(torch.int32))
            self.rows.write((row, slice(req.prefix_len, req.extend_end)), part.to(torch.int32))
            req.kv.kv_allocated_len = req.kv.kv_committed_len = req.extend_end
            checkpoint_kv_cache(req, self.tree)
        return counts

    def decode(self, reqs: Sequence[Req], tokens: Sequence[int]) -> None:
        """Run one decode step: each request's newest token gets a slot and `tokens` are sampled.

        Raises OutOfKVError with nothing changed when there is no room.
        """
        fresh = [index for index, req in enumerate(reqs) if req.kv.kv_committed_len == req.seqlen]
        for index in fresh:  # the token that the prefill sampled
            reqs[index].output_ids.append(tokens[index])
        lengths = torch.tensor([req.kv.kv_committed_len for req in reqs], dtype=torch.int64)
        new_pages = sum(req.kv.kv_committed_len % self.page_size == 0 for req in reqs)
        fits = self.allocator.check_decode_capacity(
            num_tokens=new_pages * self.page_size, tree_cache=self.tree, requests=reqs
        )
        if not fits:
            for index in fresh:
                reqs[index].output_ids.pop()
            raise OutOfKVError(f"{len(reqs)} decode tokens asked, {self.room()} free or evictable")
        with self._declared(reqs, [1] * len(reqs)):
            evict_from_tree_cache(self.tree, len(reqs) * self.page_size)
            if self.page_size == 1:
                slots = self.allocator.alloc(len(reqs))
            else:
                row_ids = torch.tensor([req.kv.req_pool_idx for req in reqs])
                last = self.rows.req_to_token[row_ids, lengths - 1].to(torch.int64)
                after = (lengths + 1).to(self.device)
                slots = self.allocator.alloc_decode(after, lengths + 1, last)
        rows = torch.tensor([req.kv.req_pool_idx for req in reqs])
        self.rows.write((rows, lengths), slots.to(torch.int32))
        for req, token in zip(reqs, tokens, strict=True):
            req.kv.kv_allocated_len += 1
            req.kv.kv_committed_len += 1
            req.output_ids.append(token)

    def finish(self, req: Req) -> None:
        """End a request: its KV becomes cache."""
        req.finished_reason = FINISH_LENGTH(len(req.output_ids))
        req.finished_len = max(0, req.kv.kv_committed_len - len(req.origin_input_ids))
        release_kv_cache(req, self.tree, checkpoint=True)

    def abort(self, req: Req) -> None:
        """Drop a request that holds KV, keeping none of it."""
        release_kv_cache(req, self.tree, checkpoint=False)

    def preempt(self, req: Req, *, keep: bool = True) -> int:
        """Preempt a request; returns the tokens kept as cache (none with `keep` off, as stock)."""
        kept = 0
        if keep and isinstance(self.tree, BrosRadixCache):
            kept = self.tree.release_preempted(req)
        else:
            release_kv_cache(req, self.tree, checkpoint=False)
        req.reset_for_retract()
        return kept

    def kept_tokens(self, req: Req) -> int:
        """Return how much of a preempted request's KV is held for it."""
        entry = self.tree.held.ledger.get(req.rid) if isinstance(self.tree, BrosRadixCache) else None
        return 0 if entry is None else entry.kept_tokens

    def slots_of(self, req: Req) -> torch.Tensor:
        """Return the slots of all of a running request's tokens, in token order (int64)."""
        return self.rows.req_to_token[req.kv.req_pool_idx, : req.kv.kv_allocated_len].to(torch.int64)

    def _prefix(self, req: Req) -> torch.Tensor:
        if req.kv.holds_kv:
            return self.rows.req_to_token[req.kv.req_pool_idx, : req.prefix_len].to(torch.int64)
        if req.prefix_len == 0:
            return torch.empty(0, dtype=torch.int64, device=self.device)
        return self.tree.prefix_device_indices(req)

    def _declared(self, reqs: Sequence[Req], counts: Sequence[int]) -> Any:
        if isinstance(
            self.allocator, BidirectionalTokenToKVPoolAllocator | BidirectionalPagedTokenToKVPoolAllocator
        ):
            return self.allocator.declare_batch(
                [class_of(req) is RequestClass.RT for req in reqs], list(counts)
            )
        return _NotDeclared()

    def _alloc_extend(
        self, reqs: Sequence[Req], prefixes: Sequence[torch.Tensor], counts: Sequence[int]
    ) -> torch.Tensor | None:
        if self.page_size == 1:
            return self.allocator.alloc(sum(counts))
        before = torch.tensor([req.prefix_len for req in reqs], dtype=torch.int64)
        after = torch.tensor([req.extend_end for req in reqs], dtype=torch.int64)
        none = torch.full((1,), -1, dtype=torch.int64, device=self.device)
        last = torch.cat([prefix[-1:] if len(prefix) else none for prefix in prefixes])
        return self.allocator.alloc_extend(
            before.to(self.device), before, after.to(self.device), after, last, sum(counts)
        )


class _NotDeclared:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...
