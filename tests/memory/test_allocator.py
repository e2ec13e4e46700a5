import random

import pytest
import torch
from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator
from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator

from bros_sglang.memory.allocator import BidirectionalTokenToKVPoolAllocator
from bros_sglang.memory.paged_allocator import BidirectionalPagedTokenToKVPoolAllocator
from tests.memory.test_allocator_machine import Row, decode_batch, extend_batch, make_allocator


def test_first_slots_of_each_class_are_at_the_ends():
    allocator = make_allocator(100, 1)
    with allocator.declare_batch([True, False, True], [2, 3, 1]):
        slots = allocator.alloc(6)
    assert slots.tolist() == [98, 99, 1, 2, 3, 100]
    assert allocator.available_size() == 94


def test_first_pages_of_each_class_are_at_the_ends():
    allocator = make_allocator(40, 4)
    rows = [Row(True), Row(False), Row(True)]
    slots = extend_batch(allocator, rows, [5, 3, 4])
    # RT pages 8, 9 and 10 of 10, BE page 1
    assert slots.tolist() == [32, 33, 34, 35, 36, 4, 5, 6, 40, 41, 42, 43]
    for row, part in zip(rows, slots.split([5, 3, 4]), strict=True):
        row.slots = part
    # the first two go on in their page, the third needs a new one
    assert decode_batch(allocator, rows).tolist() == [37, 7, 28]


def test_undeclared_and_mismatched_allocations_are_real_time():
    allocator = make_allocator(100, 1)
    assert allocator.alloc(2).tolist() == [99, 100]
    with allocator.declare_batch([True, False], [4, 4]):
        assert allocator.alloc(2).tolist() == [97, 98]
    with allocator.declare_batch([False], [4]):
        assert allocator.alloc(2).tolist() == [1, 2]
        with allocator.declare_batch([True], [1]):
            assert allocator.alloc(1).tolist() == [96]
        assert allocator.alloc(1).tolist() == [3]
    assert allocator.alloc(1).tolist() == [95]


def test_declaration_is_withdrawn_when_the_allocation_raises():
    allocator = make_allocator(100, 1)
    with pytest.raises(RuntimeError), allocator.declare_batch([False], [1]):
        raise RuntimeError
    assert allocator.alloc(1).tolist() == [100]


@pytest.mark.parametrize("bad", [([True], [1, 2]), ([True], [-1])])
def test_a_bad_declaration_is_refused(bad):
    with pytest.raises(ValueError, match="declare_batch"), make_allocator(8, 1).declare_batch(*bad):
        pass


@pytest.mark.parametrize("page_size", [1, 4, 16])
@pytest.mark.parametrize("is_rt", [True, False])
def test_one_class_may_use_the_whole_pool(page_size, is_rt):
    allocator = make_allocator(64 * page_size, page_size)
    row = Row(is_rt)
    slots = extend_batch(allocator, [row], [64 * page_size])
    assert slots.unique().numel() == 64 * page_size
    assert slots.min() == page_size
    assert allocator.available_size() == 0
    assert extend_batch(allocator, [Row(not is_rt)], [1]) is None
    allocator.free_segment(slots, start_pos=0)
    assert allocator.available_size() == 64 * page_size


@pytest.mark.parametrize("page_size", [1, 16])
def test_classes_stay_apart_while_there_is_room(page_size):
    """Each class below 30 % of the pool: with at most 1/8 of the list staged the ends cannot meet."""
    rng = random.Random(5)
    allocator = make_allocator(1024 * page_size, page_size)
    rows: list[Row] = []
    for _ in range(600):
        is_rt = rng.random() < 0.5
        tokens = rng.randrange(1, 40 * page_size)
        held = sum(-(-len(row) // page_size) for row in rows if row.is_rt == is_rt)
        if held + tokens // page_size + 1 <= 0.3 * 1024:
            row = Row(is_rt)
            row.slots = extend_batch(allocator, [row], [tokens])
            rows.append(row)
        else:
            row = rows.pop(rng.choice([i for i, row in enumerate(rows) if row.is_rt == is_rt]))
            allocator.free_segment(row.slots, start_pos=0)
        be = [int(row.slots.max()) for row in rows if not row.is_rt]
        rt = [int(row.slots.min()) for row in rows if row.is_rt]
        assert not be or not rt or max(be) < min(rt)
    ends = allocator.frontiers()
    assert ends.be_frontier < ends.rt_frontier
    assert ends.gap_pages == ends.rt_frontier - ends.be_frontier - 1 >= 0.1 * 1024


def test_many_alternating_rows_keep_batch_order():
    """More class changes than are concatenated: the gathered path."""
    allocator = make_allocator(4096, 1)
    flags = [index % 2 == 0 for index in range(200)]
    counts = [index % 5 for index in range(200)]
    with allocator.declare_batch(flags, counts):
        parts = allocator.alloc(sum(counts)).split(counts)
    rt = torch.cat([part for part, flag in zip(parts, flags, strict=True) if flag])
    be = torch.cat([part for part, flag in zip(parts, flags, strict=True) if not flag])
    assert rt.tolist() == list(range(4096 - rt.numel() + 1, 4097))
    assert be.tolist() == list(range(1, be.numel() + 1))


@pytest.mark.parametrize("need_sort", [False, True])
def test_frontiers_of_an_empty_and_a_full_pool(need_sort):
    allocator = make_allocator(50, 1, need_sort=need_sort)
    assert allocator.frontiers() == (0, 51, 50)
    allocator.alloc(50)
    assert allocator.frontiers().gap_pages == 0


def test_constructor_arguments_are_the_parents():
    token = BidirectionalTokenToKVPoolAllocator(
        8, dtype=torch.float16, device="cpu", kvcache=None, need_sort=True
    )
    paged = BidirectionalPagedTokenToKVPoolAllocator(
        8, page_size=4, dtype=torch.float16, device="cpu", kvcache=None, need_sort=True
    )
    assert isinstance(token, TokenToKVPoolAllocator)
    assert isinstance(paged, PagedTokenToKVPoolAllocator)


def test_cpu_copies_go_to_the_pool():
    class Pool:
        def get_cpu_copy(self, indices, mamba_indices=None, req_pool_index=None):
            return ("copy", indices.tolist(), mamba_indices, req_pool_index)

        def load_cpu_copy(self, copy, indices, mamba_indices=None, req_pool_index=None):
            return ("load", copy, indices.tolist())

    allocator = BidirectionalTokenToKVPoolAllocator(8, torch.float16, "cpu", Pool(), False)
    slots = allocator.alloc(2)
    assert allocator.get_cpu_copy(slots, req_pool_index=3) == ("copy", [7, 8], None, 3)
    assert allocator.load_cpu_copy("kv", slots) == ("load", "kv", [7, 8])
    assert allocator.get_kvcache() is allocator._kvcache


def test_sorted_merge_without_compaction_agrees():
    """Devices without the fixed-size compaction sort instead."""
    with_it, without = make_allocator(500, 1), make_allocator(500, 1)
    without._can_compact = False
    rng = random.Random(1)
    held = [[], []]
    for _ in range(300):
        if held[0] and rng.random() < 0.5:
            index = rng.randrange(len(held[0]))
            with_it.free(held[0].pop(index))
            without.free(held[1].pop(index))
        else:
            need, is_rt = rng.randrange(1, 30), rng.random() < 0.5
            for allocator, mine in ((with_it, held[0]), (without, held[1])):
                with allocator.declare_batch([is_rt], [need]):
                    slots = allocator.alloc(need)
                if slots is not None:
                    mine.append(slots)
        assert torch.equal(with_it.free_pages, without.free_pages)


def test_pages_freed_one_at_a_time_do_not_pile_up():
    allocator = make_allocator(20_000, 1)
    slots = allocator.alloc(10_000)
    for slot in slots[:1500].split(1):
        allocator.free(slot)
    assert len(allocator.staged_pages) <= 512
    assert allocator.available_size() == 11_500
    allocator.alloc(11_500)
    assert allocator.available_size() == 0


def test_a_failing_allocation_asks_for_what_it_lacks():
    allocator = make_allocator(64, 4)
    held = allocator.alloc(48)
    asked = []

    def reclaim(tokens):
        asked.append(tokens)
        allocator.free_segment(held[:tokens], start_pos=0)

    allocator.reclaim = reclaim
    assert allocator.alloc(24).numel() == 24
    assert asked == [8]
