"""The free list that both bidirectional allocators share: one sorted list, taken from either end."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from bros_sglang.memory.batch_order import DeclaredBatch, in_batch_order

# Freed ids are merged into the sorted list once they make up this share (1/n) of it, or when an
# allocation needs them. Smaller: tighter ends, more merging. A merge costs O(list), so each id is
# moved O(n) times at worst, against once per call for the stock lists that concatenate on every free.
MERGE_WHEN_STAGED_SHARE = 8


class Frontiers(NamedTuple):
    """Where the two ends stand, in allocator pages (slots at page size 1)."""

    be_frontier: int  # last page below the widest free gap: BE grows up to here
    rt_frontier: int  # first page above it: RT grows down to here
    gap_pages: int


def merge_ascending(
    free: torch.Tensor, staged: Sequence[torch.Tensor], num_ids: int, *, can_compact: bool
) -> torch.Tensor:
    """All ids of `free` and `staged`, ascending, without waiting for the device.

    free: sorted int64 ids in 1..num_ids; staged: int64 ids in any order, none twice. When much of the
    pool is free, marking ids in a bitmap and compacting it is O(num_ids) and beats a sort
    (`can_compact`: this device has the fixed-size compaction); else the few ids are sorted.
    """
    merged = torch.cat((free, *staged))
    size = merged.numel()
    if not can_compact or size * 8 < num_ids:
        return torch.sort(merged)[0]
    marks = torch.zeros(num_ids + 1, dtype=torch.bool, device=free.device)
    marks[merged] = True
    if free.device.type == "cpu":
        return torch.nonzero(marks).view(-1)
    return torch.nonzero_static(marks, size=size).view(-1)


def compaction_available(device: torch.device | str) -> bool:
    """Whether this device can list set bits with the size given (no wait): asked once, at start."""
    try:
        probe = torch.ones(1, dtype=torch.bool, device=device)
        torch.nonzero_static(probe, size=1)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True


class TwoEndedFreeList:
    """Free pages of a pool, RT taken from the high end and BE from the low end.

    Comes before an SGLang allocator among a class's bases and takes over its free list. `free_pages`
    is ascending; freed pages wait in `staged_pages` until `MERGE_WHEN_STAGED_SHARE` or need merges them,
    so a page that a request or a tree node frees returns to its place by its number alone, whoever
    frees it. The ends may cross: what one class does not use, the other may.

    Nothing here reads a device value; `frontiers` alone does, for metrics and tests.
    """

    free_pages: torch.Tensor  # int64, ascending
    staged_pages: list[torch.Tensor]
    num_staged_pages: int
    page_size: int
    _declared: DeclaredBatch | None = None

    @contextmanager
    def declare_batch(self, is_rt: Sequence[bool], tokens: Sequence[int]) -> Iterator[None]:
        """Say whose tokens the allocations inside this context are for.

        is_rt, tokens: one entry per request, in batch order; plain Python values. An allocation of another
        size than sum(tokens) (a mixed batch's load-back, say) is placed as RT; a batch of one class places
        any size at its end. Without a declaration an allocation is RT-class. Raises ValueError on unequal
        lengths or negative counts.
        """
        previous, self._declared = self._declared, DeclaredBatch.of(is_rt, tokens)
        try:
            yield
        finally:
            self._declared = previous

    @property
    def declared_batch(self) -> DeclaredBatch | None:
        """The declaration in force, if any."""
        return self._declared

    def reset_free_list(self, num_pages: int) -> None:
        """Everything free: pages 1..num_pages; page 0 is padding and never handed out."""
        device = self.device  # type: ignore[attr-defined]
        if not hasattr(self, "_can_compact"):
            self._can_compact = compaction_available(device)
        self._num_listed = num_pages
        self.free_pages = torch.arange(1, num_pages + 1, dtype=torch.int64, device=device)
        self.staged_pages = []
        self.num_staged_pages = 0
        # Pages handed out so far, for metrics; frees are not attributed (a node may belong to both classes).
        self.pages_allocated_rt = 0
        self.pages_allocated_be = 0

    def num_free_pages(self) -> int:
        """Free pages, staged ones included."""
        return len(self.free_pages) + self.num_staged_pages

    def get_all_free_pages(self) -> torch.Tensor:
        """Every free page, in no order."""
        return torch.cat((self.free_pages, *self.staged_pages))

    def merge_and_sort_free(self) -> None:
        """Put staged pages in their places."""
        if not self.staged_pages:
            return
        self.free_pages = merge_ascending(
            self.free_pages, self.staged_pages, self._num_listed, can_compact=self._can_compact
        )
        self.staged_pages = []
        self.num_staged_pages = 0

    def stage(self, page_ids: torch.Tensor) -> None:
        """Take back pages. Copied: callers pass views of rows and node values that they go on to reuse."""
        self.staged_pages.append(page_ids.to(torch.int64, copy=True))
        self.num_staged_pages += page_ids.numel()

    def ensure_sorted(self, num_pages: int) -> bool:
        """Merge if that is due; whether `num_pages` can then be taken."""
        num_sorted = len(self.free_pages)
        if self.num_staged_pages and (
            num_pages > num_sorted or self.num_staged_pages * MERGE_WHEN_STAGED_SHARE >= num_sorted
        ):
            self.merge_and_sort_free()
            num_sorted = len(self.free_pages)
        return num_pages <= num_sorted

    def take_high(self, num_pages: int) -> torch.Tensor:
        """RT's end; the caller has asked `ensure_sorted`."""
        cut = len(self.free_pages) - num_pages
        taken = self.free_pages[cut:]
        self.free_pages = self.free_pages[:cut]
        self.pages_allocated_rt += num_pages
        return taken

    def take_low(self, num_pages: int) -> torch.Tensor:
        """BE's end; the caller has asked `ensure_sorted`."""
        taken = self.free_pages[:num_pages]
        self.free_pages = self.free_pages[num_pages:]
        self.pages_allocated_be += num_pages
        return taken

    def take_in_batch_order(self, is_rt: Sequence[bool], pages: Sequence[int]) -> torch.Tensor:
        """Pages for a batch, each request's from its class's end; the caller has asked `ensure_sorted`."""
        rt_pages = sum(count for flag, count in zip(is_rt, pages, strict=True) if flag)
        be_pages = sum(pages) - rt_pages
        if not be_pages:
            return self.take_high(rt_pages)
        if not rt_pages:
            return self.take_low(be_pages)
        return in_batch_order(self.take_low(be_pages), self.take_high(rt_pages), is_rt, pages)

    def frontiers(self) -> Frontiers:
        """Where the ends stand now. Waits for the device: for metrics at scrape time and for tests."""
        free = torch.sort(self.get_all_free_pages())[0].cpu()
        if not free.numel():
            return Frontiers(self._num_listed, self._num_listed + 1, 0)
        starts = torch.cat((torch.tensor([0]), torch.nonzero(free.diff() != 1).view(-1) + 1))
        lengths = torch.cat((starts, torch.tensor([free.numel()]))).diff()
        widest = int(lengths.argmax())
        first, gap = int(free[starts[widest]]), int(lengths[widest])
        return Frontiers(first - 1, first + gap, gap)
