"""Stage memory: copies of a best-effort victim's KV, and the allocators on device tensors.

Copy in runs against scattered, in GB/s beside the measured peak of the link; time of alloc, free and evict,
stock and bros in turn; and how often each waits for the device.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.models import CONFIGS
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.evals.gpu.run import GpuRun
    from bros_sglang.evals.memory.pool_driver import Variant

PAGES = (1, 16)
SIZES = (1, 64, 1024, 8192)


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell for the copies and one for the operations."""

    def part(what: str) -> dict[str, Any]:
        run.close()
        scale = run.scale
        arguments = ["--what", what, "--device", scale.device, "--model", scale.model]
        return run.measured(__name__, [*arguments, "--scale", scale.name], f"memory-{what}")

    return [
        Cell("memory", "copies", 60.0, lambda: part("copies")),
        Cell("memory", "operations", 90.0, lambda: part("operations")),
    ]


def measure_copies(device: str, model: str, *, pool: int, steps: int) -> dict[str, Any]:
    """Return GB/s of both ways to bring a victim's KV to the host, for placements of either allocator."""
    import torch

    from bros_sglang.evals.memory.churn import run_churn
    from bros_sglang.evals.memory.locality import copy_times, locality_of
    from bros_sglang.evals.memory.pool_driver import VARIANTS

    config = CONFIGS[model]
    width = 2 * config["num_key_value_heads"] * config["head_dim"]
    layers = config["num_hidden_layers"]
    victims: dict[str, list[Any]] = {}
    for variant in VARIANTS:
        result = run_churn(variant, pool=pool, page_size=1, steps=steps)
        victims[variant] = [slots for slots in result.victims if slots.numel()][-16:]
    if not all(victims.values()):
        raise RuntimeError("the churn made no victim: raise its steps")
    kv = torch.ones((layers, pool + 1, width), dtype=torch.float16, device=device)
    figures: dict[str, Any] = {"layers": layers, "kv_bytes_per_token": layers * width * 2}
    for label, times in copy_times(kv, victims).items():
        locality = locality_of(victims[label])
        figures[label] = {
            "victims": len(victims[label]),
            "megabytes": times.megabytes,
            "tokens_per_run": locality.tokens_per_run,
            "scattered_gb_per_s": times.megabytes / times.scattered_ms,
            "in_runs_gb_per_s": times.megabytes / times.in_runs_ms,
        }
    return figures


def measure_operations(device: str, *, pool: int, repeats: int) -> dict[str, Any]:
    """Return times of single operations and waits per call, stock beside bros."""
    rows = [row for page in PAGES for row in _timings(device, pool, page, repeats)]
    rows += _evictions(device, pool, max(5, repeats // 10))
    return {"timings": rows, "waits": {variant: _waits(device, variant) for variant in ("stock", "bros")}}


def _timings(device: str, pool: int, page_size: int, repeats: int) -> list[dict[str, Any]]:
    from bros_sglang.evals.memory.pool_driver import VARIANTS, make_allocator

    allocators = {variant: make_allocator(variant, pool, page_size, device=device) for variant in VARIANTS}
    for allocator in allocators.values():
        _age(allocator, pool, page_size)
    rows = []
    for size in (size for size in SIZES if size >= page_size):
        times: dict[str, dict[str, list[float]]] = {v: {"alloc": [], "free": []} for v in VARIANTS}
        for repeat in range(repeats):
            for variant in VARIANTS if repeat % 2 else VARIANTS[::-1]:
                allocator = allocators[variant]
                seconds, slots = _timed(device, partial(allocator.alloc, size))
                times[variant]["alloc"].append(seconds)
                seconds, _ = _timed(device, partial(allocator.free_segment, slots, start_pos=0))
                times[variant]["free"].append(seconds)
        rows += [
            {
                "operation": operation,
                "page_size": page_size,
                "size": size,
                "allocator": variant,
                "median_us": 1e6 * statistics.median(times[variant][operation]),
            }
            for operation in ("alloc", "free")
            for variant in VARIANTS
        ]
    return rows


def _evictions(device: str, pool: int, repeats: int) -> list[dict[str, Any]]:
    """Time evictions from a tree that fills 60 % of the pool, stock and bros in turn."""
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams

    from bros_sglang.evals.memory.pool_driver import VARIANTS, PoolDriver

    drivers = {v: PoolDriver(pool, allocator=v, tree=v, max_requests=4, device=device) for v in VARIANTS}
    draws = {variant: random.Random(7) for variant in VARIANTS}
    for variant, driver in drivers.items():
        _fill(driver, draws[variant], int(0.6 * pool))
    rows = []
    for size in SIZES:
        times: dict[Variant, list[float]] = {variant: [] for variant in VARIANTS}
        for _ in range(repeats):
            for variant, driver in drivers.items():
                seconds, evicted = _timed(device, partial(driver.tree.evict, EvictParams(num_tokens=size)))
                times[variant].append(seconds)
                _fill(driver, draws[variant], evicted.num_tokens_evicted)
        rows += [
            {
                "operation": "evict",
                "page_size": 1,
                "size": size,
                "allocator": variant,
                "median_us": 1e6 * statistics.median(times[variant]),
            }
            for variant in VARIANTS
        ]
    return rows


def _fill(driver: Any, rng: random.Random, tokens: int) -> None:
    """Run requests through until the tree holds so many tokens more; the classes alternate."""
    goal = driver.tree.evictable_size() + tokens
    while driver.tree.evictable_size() < goal:
        prompt = [rng.randrange(1 << 20) for _ in range(rng.randint(64, 512))]
        request_class = RequestClass.RT if rng.random() < 0.5 else RequestClass.BE
        req = driver.request(f"r{rng.random()}", request_class, prompt)
        driver.prefill([req])
        driver.finish(req)


def _age(allocator: Any, pool: int, page_size: int) -> None:
    """Leave 60 % of the pool held, after segments of all sizes came and went."""
    rng = random.Random(0)
    held: list[Any] = []
    used = 0
    for _ in range(100):
        while used < 0.6 * pool:
            tokens = -(-rng.randint(1, max(page_size, pool // 100)) // page_size) * page_size
            held.append(allocator.alloc(tokens))
            used += tokens
        for _ in range(8):
            slots = held.pop(rng.randrange(len(held)))
            used -= slots.numel()
            allocator.free_segment(slots, start_pos=0)


def _timed(device: str, action: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds until the device is done with what the action launched, and its result."""
    import torch

    wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    began_s = time.perf_counter()
    result = action()
    wait()
    return time.perf_counter() - began_s, result


def _waits(device: str, variant: Any) -> dict[str, Any]:
    """Put requests through an engine's memory and count the waits of allocator and tree."""
    from bros_sglang.evals.gpu.sync_count import SyncCounter
    from bros_sglang.evals.memory.churn import Churn, ChurnLoad
    from bros_sglang.evals.memory.pool_driver import PoolDriver

    waits: dict[str, Any] = {}
    for page_size in PAGES:
        driver = PoolDriver(
            16_000, page_size=page_size, allocator=variant, tree=variant, max_context=8192, device=device
        )
        counter = SyncCounter(gpu=device == "cuda")
        counter.wrap(driver.allocator, "alloc", "alloc_extend", "alloc_decode", "free_segment", "free")
        counter.wrap(driver.tree, "evict", "checkpoint_into_tree", "release_preempted", "match_prefix")
        load = ChurnLoad(be_outstanding=24, decode_rows=24, rt_output_mean=60)
        churn = Churn(driver, load, keep_on_preempt=variant == "bros")
        for _ in range(120):
            churn._arrive()
            churn._admit()
            churn._decode()
        waits[f"page {page_size}"] = counter.per_call()
    return waits


def main(
    what: Annotated[str, typer.Option()],
    device: Annotated[str, typer.Option()],
    model: Annotated[str, typer.Option()],
    scale: Annotated[str, typer.Option()],
    json_file: Annotated[Path, typer.Option("--json")],
) -> None:
    """Measure one part, and write its figures."""
    small = scale != "gpu"
    if what == "copies":
        sizes = {"pool": 6_000, "steps": 250} if small else {"pool": 120_000, "steps": 3000}
        figures = measure_copies(device, model, **sizes)
    else:
        sizes = {"pool": 20_000, "repeats": 20} if small else {"pool": 800_000, "repeats": 200}
        figures = measure_operations(device, **sizes)
    json_file.write_text(json.dumps(figures) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
