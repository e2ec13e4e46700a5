"""The free list that both bidirectional allocators share: one sorted list, taken from either end."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import torch

from bros_sglang.memory.batch_order import DeclaredBatch, in_batch_order
from bros_sglang.request_class import RequestClass, class_of

# Freed ids are merged into the sorted list once they make up this share (1/n) of it, or when an
# allocation needs them. Smaller: tighter ends, more merging. A merge costs O(list), so each id is
# moved O(n) times at worst, against once per call for the stock lists that concatenate on every free.
MERGE_WHEN_STAGED_SHARE = 8
# With less than this share (1/n) of the pool free, sorting the free pages beats going through all marks.
_SORT_BELOW_SHARE = 16
_MOST_STAGED_TENSORS = 512  # a pool freed a page at a time must not end as a million little tensors


class Frontiers(NamedTuple):
    """Where the two ends stand, in allocator pages (slots at page size 1)."""

    be_frontier: int  # last page below the widest free gap: BE grows up to here
    rt_frontier: int  # first page above it: RT grows down to here
    gap_pages: int


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
    # Called with the tokens that an allocation lacks, when it would fail: may make some free.
    reclaim: Callable[[int], None] | None = None
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
        self._marks: torch.Tensor | None = None  # bool per page: free as of `_last_listing`
        self._last_listing = self.free_pages
        self._be_at_listing = 0

    def num_free_pages(self) -> int:
        """Free pages, staged ones included."""
        return len(self.free_pages) + self.num_staged_pages

    def get_all_free_pages(self) -> torch.Tensor:
        """Every free page, in no order."""
        return torch.cat((self.free_pages, *self.staged_pages))

    def merge_and_sort_free(self) -> None:
        """Put staged pages in their places, without waiting for the device.

        Where much of the pool is free, the free pages are kept as marks in a bitmap, brought up to date and
        listed: O(pages), far below a sort. Else the few pages are sorted.
        """
        if not self.staged_pages:
            return
        num_free = self.num_free_pages()
        if self._can_compact and num_free * _SORT_BELOW_SHARE >= self._num_listed:
            self._list_marked_pages(num_free)
        else:
            self.free_pages = torch.sort(self.get_all_free_pages())[0]
            self._marks = None
        self.staged_pages = []
        self.num_staged_pages = 0

    def _list_marked_pages(self, num_free: int) -> None:
        marks = self._marks
        if marks is None:
            marks = torch.zeros(self._num_listed + 1, dtype=torch.bool, device=self.free_pages.device)
            marks.index_fill_(0, self.free_pages, True)
        else:
            # Since the last listing pages were taken from its two ends, and nowhere else.
            taken_low = self.pages_allocated_be - self._be_at_listing
            left = taken_low + len(self.free_pages)
            marks.index_fill_(0, self._last_listing[:taken_low], False)
            marks.index_fill_(0, self._last_listing[left:], False)
        marks.index_fill_(0, torch.cat(self.staged_pages), True)
        if marks.device.type == "cpu":
            self.free_pages = torch.from_numpy(np.flatnonzero(marks.numpy()))
        else:
            self.free_pages = torch.nonzero_static(marks, size=num_free).view(-1)
        self._marks = marks
        self._last_listing = self.free_pages
        self._be_at_listing = self.pages_allocated_be

    def stage(self, page_ids: torch.Tensor) -> None:
        """Take back pages. Copied: callers pass views of rows and node values that they go on to reuse."""
        self.staged_pages.append(page_ids.to(torch.int64, copy=True))
        self.num_staged_pages += page_ids.numel()
        if len(self.staged_pages) >= _MOST_STAGED_TENSORS:
            self.staged_pages = [torch.cat(self.staged_pages)]

    def ensure_sorted(self, num_pages: int) -> bool:
        """Merge if that is due; whether `num_pages` can then be taken."""
        num_sorted = len(self.free_pages)
        staged = self.num_staged_pages
        if not staged or (num_pages <= num_sorted and staged * MERGE_WHEN_STAGED_SHARE < num_sorted):
            return num_pages <= num_sorted
        self.merge_and_sort_free()
        return num_pages <= len(self.free_pages)

    def ensure(self, num_pages: int) -> bool:
        """As `ensure_sorted`, and with nothing left to lose: what `reclaim` can free is used too."""
        if self.ensure_sorted(num_pages):
            return True
        if self.reclaim is None:
            return False
        self.reclaim((num_pages - self.num_free_pages()) * self.page_size)
        return self.ensure_sorted(num_pages)

    def check_decode_capacity(
        self, *, num_tokens: int, tree_cache: Any, requests: Sequence[Any] | None = None, **kwargs: Any
    ) -> bool:
        """Whether the next decode step fits, after eviction; see the base class.

        `num_tokens` is exact here, so held KV may give way: for real-time rows before real-time cache does.
        """
        short = num_tokens - self.num_free_pages() * self.page_size
        if short > 0 and requests and hasattr(tree_cache, "make_way"):
            rt_rows = sum(class_of(req) is RequestClass.RT for req in requests)
            tree_cache.make_way(short, rt_tokens=-(-num_tokens * rt_rows // len(requests)), all_needed=True)
        parent: Any = super()
        fits: bool = parent.check_decode_capacity(
            num_tokens=num_tokens, tree_cache=tree_cache, requests=requests, **kwargs
        )
        return fits

    def take_high(self, num_pages: int) -> torch.Tensor:
        """RT's end; the caller has asked `ensure`."""
        free = self.free_pages
        # One operation where two slices would be two.
        self.free_pages, taken = free.split_with_sizes((len(free) - num_pages, num_pages))
        self.pages_allocated_rt += num_pages
        return taken

    def take_low(self, num_pages: int) -> torch.Tensor:
        """BE's end; the caller has asked `ensure`."""
        free = self.free_pages
        taken, self.free_pages = free.split_with_sizes((num_pages, len(free) - num_pages))
        self.pages_allocated_be += num_pages
        return taken

    def take_in_batch_order(self, is_rt: Sequence[bool], pages: Sequence[int]) -> torch.Tensor:
        """Pages for a batch, each request's from its class's end; the caller has asked `ensure`."""
        rt_pages = sum(compress(pages, is_rt))
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
