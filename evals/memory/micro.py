"""Time of single operations against stock's classes, interleaved in one run, on a churned pool."""

import gc
import random
import statistics
from collections.abc import Callable, Iterator
from itertools import count
from time import perf_counter_ns
from typing import Any, NamedTuple

import torch
from sglang.srt.mem_cache.base_prefix_cache import EvictParams, InsertParams, MatchPrefixParams
from sglang.srt.mem_cache.radix_cache import RadixKey

from bros_sglang.evals.memory.pool_driver import VARIANTS, PoolDriver, Variant, make_allocator
from bros_sglang.request_class import RequestClass

SIZES = (1, 8, 64, 512, 1024, 4096, 8192)
_CHURN_CHUNK = 4096


class Timing(NamedTuple):
    """One row of the result file."""

    operation: str
    size: int  # tokens
    allocator: str  # "stock" or "bros"; for tree_* operations the tree core
    median_us: float
    mean_us: float  # merges of the free list, rare and larger, are in here


def _row(operation: str, size: int, allocator: str, ns: list[int]) -> Timing:
    return Timing(operation, size, allocator, statistics.median(ns) / 1e3, statistics.fmean(ns) / 1e3)


def _timed(action: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[int, Any]:
    start = perf_counter_ns()
    result = action(*args, **kwargs)
    return perf_counter_ns() - start, result


def churned(
    variant: Variant, pool: int, page_size: int, seed: int, rounds: int = 600
) -> tuple[Any, list[Any]]:
    """Return an allocator of which 60 % is held, after segments of all sizes came and went at random."""
    rng = random.Random(seed)
    allocator = make_allocator(variant, pool, page_size)
    held: list[torch.Tensor] = []
    used = 0
    for _ in range(rounds):
        while used < 0.6 * pool:
            tokens = -(-rng.randint(1, _CHURN_CHUNK) // page_size) * page_size
            with _declared(allocator, rng.random() < 0.5, tokens):
                slots = allocator.alloc(tokens)
            held.append(slots)
            used += tokens
        for _ in range(8):
            slots = held.pop(rng.randrange(len(held)))
            used -= slots.numel()
            allocator.free_segment(slots, start_pos=0)
    return allocator, held


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def _declared(allocator: Any, is_rt: bool, tokens: int) -> Any:  # noqa: FBT001
    return allocator.declare_batch([is_rt], [tokens]) if hasattr(allocator, "declare_batch") else _Nothing()


def allocator_timings(pool: int, repeats: int, page_size: int, seed: int = 0) -> Iterator[Timing]:
    """Time alloc and free of 1 to 8,192 tokens, stock and bros in turn; classes alternate."""
    prefix = "" if page_size == 1 else f"page{page_size}_"
    allocators = {variant: churned(variant, pool, page_size, seed)[0] for variant in VARIANTS}
    for size in SIZES:
        if size < page_size:
            continue
        alloc_ns: dict[Variant, list[int]] = {variant: [] for variant in VARIANTS}
        free_ns: dict[Variant, list[int]] = {variant: [] for variant in VARIANTS}
        for repeat in range(repeats):
            for variant in VARIANTS if repeat % 2 else VARIANTS[::-1]:
                allocator = allocators[variant]
                with _declared(allocator, repeat % 4 < 2, size):
                    ns, slots = _timed(allocator.alloc, size)
                alloc_ns[variant].append(ns)
                ns, _ = _timed(allocator.free_segment, slots, start_pos=0)
                free_ns[variant].append(ns)
        for variant in VARIANTS:
            yield _row(f"{prefix}alloc", size, variant, alloc_ns[variant])
            yield _row(f"{prefix}free", size, variant, free_ns[variant])
    if page_size > 1:
        yield from _paged_timings(allocators, prefix, repeats, page_size)
    else:
        yield from _mixed_timings(allocators["bros"], repeats)


def _paged_timings(
    allocators: dict[Variant, Any], prefix: str, repeats: int, page_size: int
) -> Iterator[Timing]:
    """Time alloc_extend of one new request, and alloc_decode where one row in `page_size` needs a page."""
    none_before, no_slot = torch.zeros(1, dtype=torch.int64), torch.full((1,), -1, dtype=torch.int64)
    for size in SIZES:
        after = torch.tensor([size], dtype=torch.int64)
        times: dict[Variant, list[int]] = {variant: [] for variant in VARIANTS}
        for repeat in range(repeats):
            for variant in VARIANTS if repeat % 2 else VARIANTS[::-1]:
                allocator = allocators[variant]
                with _declared(allocator, repeat % 4 < 2, size):
                    ns, slots = _timed(
                        allocator.alloc_extend, none_before, none_before, after, after, no_slot, size
                    )
                times[variant].append(ns)
                allocator.free_segment(slots, start_pos=0)
        for variant in VARIANTS:
            yield _row(f"{prefix}alloc_extend", size, variant, times[variant])
    for rows in (8, 64, 256):
        lengths = torch.arange(rows, dtype=torch.int64) % page_size + page_size + 1
        last = (torch.arange(rows, dtype=torch.int64) + 1) * page_size + (lengths - 2) % page_size
        times = {variant: [] for variant in VARIANTS}
        for repeat in range(repeats):
            for variant in VARIANTS if repeat % 2 else VARIANTS[::-1]:
                allocator = allocators[variant]
                with _declared(allocator, repeat % 4 < 2, rows):
                    ns, slots = _timed(allocator.alloc_decode, lengths, lengths, last)
                times[variant].append(ns)
                allocator.free_page_ids(slots[lengths % page_size == 1] // page_size)
        for variant in VARIANTS:
            yield _row(f"{prefix}alloc_decode", rows, variant, times[variant])


def _mixed_timings(allocator: Any, repeats: int) -> Iterator[Timing]:
    """Time what stock has no counterpart of: declaring a batch, and a decode step of both classes."""
    for rows in (8, 64, 256):
        flags, ones = [index % 2 == 0 for index in range(rows)], [1] * rows
        declare_ns, alloc_ns = [], []
        for _ in range(repeats):
            start = perf_counter_ns()
            with allocator.declare_batch(flags, ones):
                entered = perf_counter_ns()
                slots = allocator.alloc(rows)
                done = perf_counter_ns()
            declare_ns.append(entered - start + perf_counter_ns() - done)
            alloc_ns.append(done - entered)
            allocator.free(slots)
        yield _row("declare_alternating_rows", rows, "bros", declare_ns)
        yield _row("alloc_alternating_rows", rows, "bros", alloc_ns)


def _prompts(seed: int) -> Iterator[list[int]]:
    """Prompts of which four share each 512-token beginning."""
    rng = random.Random(seed)
    shared: list[int] = []
    for index in count():
        if index % 4 == 0:
            shared = [rng.randrange(1 << 20) for _ in range(512)]
        yield shared + [rng.randrange(1 << 20) for _ in range(rng.randint(32, 512))]


def _fill(driver: PoolDriver, prompts: Iterator[list[int]], tokens: int, names: Iterator[int]) -> None:
    """Run requests through until the tree holds so many tokens more."""
    goal = driver.tree.evictable_size() + tokens
    while driver.tree.evictable_size() < goal:
        name = next(names)
        req = driver.request(f"r{name}", RequestClass.RT if name % 2 else RequestClass.BE, next(prompts))
        driver.prefill([req])
        driver.finish(req)


def evict_timings(pool: int, repeats: int) -> Iterator[Timing]:
    """Time an eviction of 1 to 8,192 tokens from a tree that fills 60 % of the pool (Rust core)."""
    drivers = {v: PoolDriver(pool, allocator=v, tree=v, max_requests=8) for v in VARIANTS}
    prompts = {variant: _prompts(7) for variant in VARIANTS}
    names = {variant: count() for variant in VARIANTS}
    for variant, driver in drivers.items():
        _fill(driver, prompts[variant], int(0.6 * pool), names[variant])
    for size in SIZES:
        times: dict[Variant, list[int]] = {variant: [] for variant in VARIANTS}
        for _ in range(max(5, repeats // 8)):
            for variant, driver in drivers.items():
                ns, result = _timed(driver.tree.evict, EvictParams(num_tokens=size))
                times[variant].append(ns)
                _fill(driver, prompts[variant], result.num_tokens_evicted, names[variant])
        for variant in VARIANTS:
            yield _row("evict", size, variant, times[variant])


def core_timings(repeats: int, nodes_tokens: int = 400_000) -> Iterator[Timing]:
    """Time the tree's own operations on the Rust and the Python core: what a Python strategy would cost."""
    for core in ("rust", "python"):
        driver = PoolDriver(1_000_000, tree_core=core, max_requests=8)
        prompts, names = _prompts(3), count()
        _fill(driver, prompts, nodes_tokens, names)
        insert_ns, match_ns, evict_ns = [], [], []
        for _, prompt in zip(range(repeats), prompts, strict=False):
            req = driver.request("x", RequestClass.BE, prompt)
            key = driver.tree.request_key(req)
            value = driver.allocator.alloc(len(prompt))
            tree = driver.tree
            insert_ns.append(_timed(tree.insert, InsertParams(key=key, value=value, priority=1))[0])
            match_ns.append(_timed(tree.match_prefix, MatchPrefixParams(key=RadixKey(key.token_ids)))[0])
            evict_ns.append(_timed(tree.evict, EvictParams(num_tokens=512))[0])
        yield _row("tree_insert", 512, core, insert_ns)
        yield _row("tree_match", 512, core, match_ns)
        yield _row("tree_evict", 512, core, evict_ns)


def run_micro(pool: int = 1_000_000, repeats: int = 400, page_size: int = 16) -> Iterator[Timing]:
    """Run all of it; yields rows as they are measured. The garbage collector is off meanwhile, as usual."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield from allocator_timings(pool, repeats, 1)
        yield from allocator_timings(pool, repeats, page_size)
        yield from evict_timings(pool, repeats)
        yield from core_timings(repeats)
    finally:
        if collecting:
            gc.enable()
