"""Random use of the allocators: no slot lost, none handed out twice, padding never, each class at its end."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bros_sglang.memory.allocator import BidirectionalTokenToKVPoolAllocator
from bros_sglang.memory.paged_allocator import BidirectionalPagedTokenToKVPoolAllocator


def make_allocator(size, page_size, *, need_sort=False):
    if page_size == 1:
        return BidirectionalTokenToKVPoolAllocator(size, torch.float16, "cpu", None, need_sort)
    allocator = BidirectionalPagedTokenToKVPoolAllocator(
        size, page_size, torch.float16, "cpu", None, need_sort
    )
    allocator.debug_mode = True
    return allocator


class Row:
    """A request's KV row: slots in token order."""

    def __init__(self, is_rt):
        self.is_rt = is_rt
        self.slots = torch.empty(0, dtype=torch.int64)

    def __len__(self):
        return self.slots.numel()


def ceil_pages(tokens, page_size):
    return -(-tokens // page_size)


def extend_batch(allocator, rows, counts):
    """What alloc_for_extend does: one allocation for the batch; None when it does not fit."""
    with allocator.declare_batch([row.is_rt for row in rows], counts):
        if allocator.page_size == 1:
            return allocator.alloc(sum(counts))
        prefix = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        seq = prefix + torch.tensor(counts, dtype=torch.int64)
        last = torch.tensor([int(row.slots[-1]) if len(row) else -1 for row in rows])
        return allocator.alloc_extend(prefix, prefix, seq, seq, last, sum(counts))


def decode_batch(allocator, rows):
    """What alloc_for_decode does: one token for each row."""
    with allocator.declare_batch([row.is_rt for row in rows], [1] * len(rows)):
        if allocator.page_size == 1:
            return allocator.alloc(len(rows))
        seq = torch.tensor([len(row) + 1 for row in rows], dtype=torch.int64)
        last = torch.tensor([int(row.slots[-1]) for row in rows])
        return allocator.alloc_decode(seq, seq, last)


class AllocatorMachine(RuleBasedStateMachine):
    page_size = 1
    max_pages = 96

    def __init__(self):
        super().__init__()
        self.rows: list[Row] = []
        self.group: list[torch.Tensor] | None = None

    @initialize(pages=st.integers(4, 96), tail=st.integers(0, 63), need_sort=st.booleans())
    def start(self, pages, tail, need_sort):
        # The pool need not be a multiple of the page.
        self.allocator = make_allocator(
            pages * self.page_size + tail % self.page_size, self.page_size, need_sort=need_sort
        )
        self.num_pages = pages

    # -- model
    def held_pages(self):
        ids = [row.slots // self.page_size for row in self.rows]
        ids += [] if self.group is None else self.group
        return torch.unique(torch.cat(ids)).tolist() if ids else []

    def pending_pages(self):
        return torch.unique(torch.cat(self.group)).numel() if self.group else 0

    def commit(self, rows, counts, slots, listed_before, staged_before):
        assert slots.dtype == torch.int64
        assert slots.numel() == sum(counts)
        start = 0
        new_low, new_high = [], []
        for row, count in zip(rows, counts, strict=True):
            mine = slots[start : start + count]
            start += count
            known = set((row.slots // self.page_size).tolist())
            (new_high if row.is_rt else new_low).extend(
                page for page in (mine // self.page_size).unique().tolist() if page not in known
            )
            row.slots = torch.cat((row.slots, mine))
        assert not (set(new_low) | set(new_high)) - listed_before, "handed out a page that was not free"
        if new_low and new_high:
            assert max(new_low) < min(new_high)
        # At its end but for pages still staged: at most that many lie beyond.
        if new_low:
            below = sum(page <= max(new_low) for page in listed_before)
            assert below <= len(new_low) + staged_before
        if new_high:
            above = sum(page >= min(new_high) for page in listed_before)
            assert above <= len(new_high) + staged_before

    def free_state(self):
        return set(self.allocator.get_all_free_pages().tolist()), self.allocator.num_staged_pages

    # -- rules
    @rule(
        wanted=st.lists(st.tuples(st.booleans(), st.integers(0, 200)), min_size=1, max_size=24),
        grow=st.integers(0, 3),
    )
    def extend(self, wanted, grow):
        rows = self.rows[:grow] + [Row(is_rt) for is_rt, _ in wanted]
        counts = [count % 37 for _, count in (wanted * 4)][: len(rows)]
        needed = sum(
            ceil_pages(len(row) + count, self.page_size) - ceil_pages(len(row), self.page_size)
            for row, count in zip(rows, counts, strict=True)
        )
        listed, staged = self.free_state()
        slots = extend_batch(self.allocator, rows, counts)
        if slots is None:
            assert needed > len(listed), "refused although there was room: capacity lost"
            return
        assert needed <= len(listed)
        self.commit(rows, counts, slots, listed, staged)
        self.rows += [row for row in rows[min(grow, len(self.rows)) :] if len(row)]

    @precondition(lambda self: any(len(row) for row in self.rows))
    @rule(take=st.integers(1, 40))
    def decode(self, take):
        rows = [row for row in self.rows if len(row)][:take]
        needed = sum(len(row) % self.page_size == 0 for row in rows)
        listed, staged = self.free_state()
        slots = decode_batch(self.allocator, rows)
        if slots is None:
            assert needed > len(listed)
            return
        self.commit(rows, [1] * len(rows), slots, listed, staged)

    @precondition(lambda self: self.rows)
    @rule(which=st.integers(0, 1000), cut=st.integers(0, 1000), as_int32=st.booleans())
    def free_tail(self, which, cut, as_int32):
        """A row ends (cut 0) or loses its tail from a page boundary on, as the tree's frees do."""
        row = self.rows[which % len(self.rows)]
        start = (cut % (len(row) + 1)) // self.page_size * self.page_size
        freed = row.slots[start:]
        row.slots = row.slots[:start].clone()
        if self.group is not None and freed.numel():
            self.group.append(freed // self.page_size)
        view = freed.to(torch.int32) if as_int32 else freed.clone()
        self.allocator.free_segment(view, start_pos=start)
        view.fill_(0)  # the caller may go on to reuse what it passed
        self.rows = [row for row in self.rows if len(row)]

    @precondition(lambda self: self.rows)
    @rule(which=st.integers(0, 1000), middle=st.integers(0, 1000))
    def free_as_segments(self, which, middle):
        row = self.rows.pop(which % len(self.rows))
        at = (middle % (len(row) + 1)) // self.page_size * self.page_size
        if self.group is not None:
            self.group.append(row.slots // self.page_size)
        self.allocator.free_segments([(row.slots[:at], 0), (row.slots[at:], at)])

    @precondition(lambda self: self.rows)
    @rule(which=st.integers(0, 1000), by_page=st.booleans())
    def free_whole(self, which, by_page):
        row = self.rows.pop(which % len(self.rows))
        if self.group is not None:
            self.group.append(row.slots // self.page_size)
        if by_page:
            self.allocator.free_page_ids(torch.unique(row.slots // self.page_size))
        else:
            self.allocator.free(row.slots)

    @precondition(lambda self: self.group is None)
    @rule()
    def begin_group(self):
        self.allocator.free_group_begin()
        self.group = []

    @precondition(lambda self: self.group is not None)
    @rule()
    def end_group(self):
        self.allocator.free_group_end()
        self.group = None

    @rule(pages=st.integers(0, 8), is_rt=st.none() | st.booleans())
    def alloc_pages(self, pages, is_rt):
        """A load-back from host: whole pages for one request; undeclared counts as RT."""
        listed, staged = self.free_state()
        tokens = pages * self.page_size
        if is_rt is None:
            slots = self.allocator.alloc(tokens)
        else:
            with self.allocator.declare_batch([is_rt], [tokens]):
                slots = self.allocator.alloc(tokens)
        if slots is None:
            assert pages > len(listed)
            return
        row = Row(is_rt is not False)
        self.commit([row], [tokens], slots, listed, staged)
        self.rows += [row] if tokens else []

    @precondition(lambda self: self.group is None)
    @rule(pages=st.integers(4, 96))
    def resize(self, pages):
        self.allocator.resize(SimpleNamespace(max_total_num_tokens=pages * self.page_size))
        self.num_pages, self.rows = pages, []

    @rule()
    def clear(self):
        self.allocator.clear()
        self.rows, self.group = [], None

    @rule()
    def merge(self):
        self.allocator.merge_and_sort_free()

    # -- always
    @invariant()
    def every_page_in_one_place(self):
        if not hasattr(self, "allocator"):
            return
        free = self.allocator.get_all_free_pages().tolist()
        held = self.held_pages()
        assert sorted(free + held) == list(range(1, self.num_pages + 1))
        assert self.allocator.available_size() == len(free) * self.page_size
        listed = self.allocator.free_pages
        assert bool((listed.diff() > 0).all())


class Page1(AllocatorMachine):
    page_size = 1


class Page4(AllocatorMachine):
    page_size = 4


class Page16(AllocatorMachine):
    page_size = 16


class Page64(AllocatorMachine):
    page_size = 64


_SETTINGS = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestPage1 = pytest.mark.timeout(300)(Page1.TestCase)
TestPage4 = Page4.TestCase
TestPage16 = Page16.TestCase
TestPage64 = Page64.TestCase
for case in (TestPage1, TestPage4, TestPage16, TestPage64):
    case.settings = _SETTINGS
del case
