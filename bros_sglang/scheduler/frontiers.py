"""Where the pool's two ends stand, read without waiting for the device."""

from __future__ import annotations

from typing import Any, Final

import torch

from bros_sglang.memory.two_ended_free_list import Frontiers

EVERY_S: Final = 5.0


def gap_of(free_pages: torch.Tensor) -> torch.Tensor:
    """Return (first page, length) of the longest run of consecutive pages; on their device, no wait.

    `free_pages`: ascending, at least one. The first of several equally long runs is taken.
    """
    count = free_pages.numel()
    index = torch.arange(count, device=free_pages.device)
    begins = torch.ones(count, dtype=torch.bool, device=free_pages.device)
    begins[1:] = free_pages.diff() != 1
    start = torch.where(begins, index, torch.zeros_like(index)).cummax(0).values
    length = index - start + 1
    longest = length.argmax().view(1)
    return torch.cat((free_pages[start[longest]], length[longest]))


class FrontierReader:
    """Reads the frontiers every few seconds: launched in one call, taken in a later one.

    Pages freed since the free list was last merged (an eighth of it at most) count as held.
    """

    def __init__(self, allocator: Any) -> None:
        self._allocator = allocator
        self._latest: Frontiers | None = None
        self._pending: torch.Tensor | None = None  # in pinned host memory, filled by the device
        self._done: Any = None  # a device event; None on a CPU
        self._next_s = float("-inf")

    def latest(self, now_s: float) -> Frontiers | None:
        """Return what was read last, at most some seconds old; None before the first reading."""
        if self._pending is None and now_s >= self._next_s:
            self._next_s = now_s + EVERY_S
            self._launch()
        if self._pending is not None and (self._done is None or self._done.query()):
            first, length = self._pending.tolist()
            self._latest = Frontiers(first - 1, first + length, length)
            self._pending = None
        return self._latest

    def _launch(self) -> None:
        free = self._allocator.free_pages
        if not free.numel():
            pages = self._allocator.size // self._allocator.page_size
            self._latest = Frontiers(pages, pages + 1, 0)
            return
        gap = gap_of(free)
        if gap.device.type == "cpu":
            self._pending = gap
            return
        self._pending = torch.empty(2, dtype=gap.dtype, pin_memory=True)
        self._pending.copy_(gap, non_blocking=True)
        self._done = torch.get_device_module(gap.device).Event()
        self._done.record()
