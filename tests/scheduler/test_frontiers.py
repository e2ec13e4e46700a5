"""The pool's ends, read without a wait."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.scheduler.frontiers import EVERY_S, FrontierReader


def _ends(free: list[int], pages: int) -> tuple[int, int, int]:
    """The plain way: the first of the longest runs of free pages."""
    best = (0, 0)
    for first in free:
        if first - 1 in free:
            continue
        length = 1
        while first + length in free:
            length += 1
        if length > best[1]:
            best = (first, length)
    first, length = best
    return (first - 1, first + length, length) if length else (pages, pages + 1, 0)


@given(st.sets(st.integers(1, 40)))
def test_the_widest_gap(free: set[int]) -> None:
    pages = torch.tensor(sorted(free), dtype=torch.int64)
    allocator = SimpleNamespace(free_pages=pages, size=40 * 16, page_size=16)
    assert FrontierReader(allocator).latest(0.0) == _ends(sorted(free), 40)


def test_it_is_read_now_and_then() -> None:
    allocator = SimpleNamespace(free_pages=torch.arange(3, 9), size=10, page_size=1)
    reader = FrontierReader(allocator)
    assert reader.latest(0.0) == (2, 9, 6)
    allocator.free_pages = torch.arange(1, 11)
    assert reader.latest(EVERY_S / 2) == (2, 9, 6)
    assert reader.latest(EVERY_S) == (0, 11, 10)
