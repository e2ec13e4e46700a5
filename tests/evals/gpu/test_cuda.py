"""The allocators on a GPU: the slots of the CPU, and no wait. Skipped where there is none."""

import random
from typing import Any

import pytest
import torch

from bros_sglang.evals.gpu.stages.memory import PAGES, measure_operations
from bros_sglang.evals.memory.pool_driver import make_allocator
from bros_sglang.memory.two_ended_free_list import compaction_available

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
POOL = 4096


def replayed(device: str, page_size: int, seed: int) -> list[list[int]]:
    """Return what an allocator hands out in a random course of allocations and frees."""
    rng = random.Random(seed)
    allocator: Any = make_allocator("bros", POOL, page_size, device=device)
    held: list[torch.Tensor] = []
    told = []
    for _ in range(300):
        if held and (rng.random() < 0.45 or allocator.available_size() < POOL // 8):
            allocator.free_segment(held.pop(rng.randrange(len(held))), start_pos=0)
            continue
        pages = [rng.randint(1, 4) for _ in range(rng.randint(1, 40 if page_size == 1 else 1))]
        counts = [page_size * count for count in pages]
        with allocator.declare_batch([rng.random() < 0.5 for _ in counts], counts):
            slots = allocator.alloc(sum(counts))
        if slots is not None:
            held.append(slots)
            told.append(slots.cpu().tolist())
    return told


@pytest.mark.parametrize("page_size", PAGES)
def test_a_gpu_hands_out_the_slots_that_a_cpu_does(page_size: int) -> None:
    for seed in range(3):
        assert replayed("cuda", page_size, seed) == replayed("cpu", page_size, seed)


def test_free_pages_are_listed_without_a_sort() -> None:
    assert compaction_available("cuda")


def test_no_operation_waits_for_the_device_where_stock_does_not() -> None:
    waits = measure_operations("cuda", pool=20_000, repeats=5)["waits"]
    for page, operations in waits["bros"].items():
        for name, figures in operations.items():
            stock = waits["stock"][page].get(name, {"waits_per_call": 0.0})
            assert figures["waits_per_call"] <= stock["waits_per_call"], (page, name)
