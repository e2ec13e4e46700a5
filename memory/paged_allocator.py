"""Bidirectional KV pages at page sizes above 1."""

import numpy as np
import torch
from sglang.kernels.ops.memory.allocator import alloc_decode_kernel, alloc_extend_kernel
from sglang.srt.mem_cache.allocator.paged import (
    PagedTokenToKVPoolAllocator,
    alloc_decode_naive,
    alloc_extend_naive,
)
from sglang.srt.utils import next_power_of_2

from bros_sglang.memory.two_ended_free_list import TwoEndedFreeList


class BidirectionalPagedTokenToKVPoolAllocator(TwoEndedFreeList, PagedTokenToKVPoolAllocator):  # type: ignore[misc]
    """RT pages from the high end of the pool, BE pages from the low end.

    Constructor, capacity and frees are those of
    sglang.srt.mem_cache.allocator.paged.PagedTokenToKVPoolAllocator. A request goes on filling its last
    page; only new pages come from its class's end. SGLang's kernels are given the new pages already in
    batch order, so they stay as they are.
    """

    def clear(self) -> None:
        """Free every page."""
        self.reset_free_list(self.num_pages)
        self.free_group = None
        self.free_page_ids_group: list[torch.Tensor] = []

    def available_size(self) -> int:
        """Free tokens."""
        return self.num_free_pages() * int(self.page_size)

    def alloc(self, need_size: int) -> torch.Tensor | None:
        """Whole pages for `need_size` tokens (a multiple of the page size), or None when too few are free.

        A declared batch of one class is placed at its end; anything else as RT.
        """
        if self.debug_mode and need_size % self.page_size:
            raise AssertionError(f"alloc({need_size}) is not a multiple of the page size {self.page_size}")
        num_pages = need_size // self.page_size
        if not self.ensure(num_pages):
            return None
        batch = self._declared
        one_class_be = batch is not None and batch.be_tokens and not batch.rt_tokens
        pages = self.take_low(num_pages) if one_class_be else self.take_high(num_pages)
        offsets = torch.arange(self.page_size, device=self.device)
        return (pages[:, None] * self.page_size + offsets).reshape(-1)

    def alloc_extend(
        self,
        prefix_lens: torch.Tensor,
        prefix_lens_cpu: torch.Tensor,
        seq_lens: torch.Tensor,
        seq_lens_cpu: torch.Tensor,
        last_loc: torch.Tensor,
        extend_num_tokens: int,
        num_new_pages: int | None = None,  # noqa: ARG002 - counted per request here
    ) -> torch.Tensor | None:
        """Slots for tokens [prefix_lens, seq_lens) of each request (int64, shape (extend_num_tokens,)).

        The `_cpu` tensors are the host mirrors of the lengths; last_loc is the slot of each request's last
        cached token, -1 without one. None when too few pages are free.
        """
        ps = self.page_size
        self._debug_check_same_offset(last_loc, 1, prefix_lens)
        pages_after = (seq_lens_cpu.numpy() + (ps - 1)) // ps
        new_pages = self._take_for_rows(pages_after - (prefix_lens_cpu.numpy() + (ps - 1)) // ps)
        if new_pages is None:
            return None
        out = torch.empty((extend_num_tokens,), dtype=torch.int64, device=self.device)
        rows = len(prefix_lens)
        if self.use_triton_kernels:
            alloc_extend_kernel[(rows,)](
                prefix_lens, seq_lens, last_loc, new_pages, out, next_power_of_2(rows), ps
            )
        else:
            alloc_extend_naive(prefix_lens, seq_lens, last_loc, new_pages, out, ps, self.device)
        self._debug_check_distinct(out)
        return out

    def alloc_decode(
        self, seq_lens: torch.Tensor, seq_lens_cpu: torch.Tensor, last_loc: torch.Tensor
    ) -> torch.Tensor | None:
        """Return the slot of each request's newest token (int64, shape (batch,)); None when pages run out.

        seq_lens count the new token; last_loc is the slot of the one before it.
        """
        self._debug_check_same_offset(last_loc, 2, seq_lens)
        new_pages = self._take_for_rows(((seq_lens_cpu.numpy() - 1) % self.page_size == 0).astype(np.int64))
        if new_pages is None:
            return None
        rows = len(seq_lens)
        out = torch.empty((rows,), dtype=torch.int64, device=self.device)
        if self.use_triton_kernels:
            alloc_decode_kernel[(rows,)](
                seq_lens, last_loc, new_pages, out, next_power_of_2(rows), self.page_size
            )
        else:
            alloc_decode_naive(seq_lens, last_loc, new_pages, out, self.page_size, new_pages.numel())
        self._debug_check_distinct(out)
        return out

    def _take_for_rows(self, pages_per_row: np.ndarray) -> torch.Tensor | None:
        """Take a batch's new pages, in batch order; `pages_per_row` counts them on the host."""
        num_pages = int(pages_per_row.sum())
        if not self.ensure(num_pages):
            return None
        batch = self._declared
        if batch is None or not batch.be_tokens:
            return self.take_high(num_pages)
        if not batch.rt_tokens:
            return self.take_low(num_pages)
        if len(batch.is_rt) != len(pages_per_row):
            return self.take_high(num_pages)
        return self.take_in_batch_order(batch.is_rt, pages_per_row.tolist())

    def _release_page_ids(self, *page_ids: torch.Tensor) -> None:
        for ids in page_ids:
            self.stage(ids)

    def _debug_check_same_offset(self, last_loc: torch.Tensor, ahead: int, lens: torch.Tensor) -> None:
        if self.debug_mode and not torch.all((last_loc + ahead) % self.page_size == lens % self.page_size):
            raise AssertionError("last_loc does not continue the request's last page")

    def _debug_check_distinct(self, out: torch.Tensor) -> None:
        if self.debug_mode and len(torch.unique(out)) != len(out):
            raise AssertionError("a slot was handed out twice")
