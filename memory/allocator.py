"""Bidirectional KV slots at page size 1 (paper section 4.2, pool-wide instead of per block)."""

import torch
from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator

from bros_sglang.memory.two_ended_free_list import MERGE_WHEN_STAGED_SHARE, TwoEndedFreeList


class BidirectionalTokenToKVPoolAllocator(TwoEndedFreeList, TokenToKVPoolAllocator):  # type: ignore[misc]
    """RT slots from the high end of the pool, BE slots from the low end.

    Constructor, capacity and frees are those of
    sglang.srt.mem_cache.allocator.token.TokenToKVPoolAllocator. `alloc` is told whose tokens it hands out
    through `declare_batch`. With `need_sort` or without, freed slots are staged and sorted.
    """

    def clear(self) -> None:
        """Free every slot."""
        self.reset_free_list(self.size)
        self.free_group: list[torch.Tensor] | None = None
        # Stock code that counts it finds nothing: staged slots are in staged_pages.
        self.release_pages = self.free_pages[:0]

    def available_size(self) -> int:
        """Free slots."""
        return self.num_free_pages()

    def alloc(self, need_size: int) -> torch.Tensor | None:
        """`need_size` slots (int64, in batch order), or None when fewer are free."""
        # Once per decode step: `take_high` and `take_low` are written out here.
        free = self.free_pages
        num_sorted = len(free)
        if need_size > num_sorted or self.num_staged_pages * MERGE_WHEN_STAGED_SHARE >= num_sorted:
            if not self.ensure(need_size):
                return None
            free = self.free_pages
            num_sorted = len(free)
        batch = self._declared
        if batch is not None and batch.be_tokens:
            if not batch.rt_tokens:
                taken, self.free_pages = free.split_with_sizes((need_size, num_sorted - need_size))
                self.pages_allocated_be += need_size
                return taken
            if batch.total_tokens == need_size:
                return self.take_in_batch_order(batch.is_rt, batch.tokens)
        self.free_pages, taken = free.split_with_sizes((num_sorted - need_size, need_size))
        self.pages_allocated_rt += need_size
        return taken

    def free(self, free_index: torch.Tensor) -> None:
        """Take slots back, now or when the free group ends."""
        if free_index.numel() == 0:
            return
        if self.free_group is None:
            self.stage(free_index)
        else:
            self.free_group.append(self._copy_for_free_group(free_index))
