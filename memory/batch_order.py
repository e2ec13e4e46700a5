"""Put the KV slots of a mixed batch into batch order: pure index arithmetic, sizes known on the host."""

from collections.abc import Iterator, Sequence
from itertools import compress, groupby
from typing import NamedTuple

import numpy as np
import torch

# Up to here concatenating slices launches fewer kernels than building and uploading an index.
MAX_CONCATENATED_SPANS = 8
MAX_COUNTED_ROWS = 32  # beyond, building the index costs less than finding out how many spans there are


class DeclaredBatch(NamedTuple):
    """Whose tokens the next allocation is for; per request, in batch order."""

    is_rt: tuple[bool, ...]
    tokens: tuple[int, ...]
    rt_tokens: int
    be_tokens: int

    @classmethod
    def of(cls, is_rt: Sequence[bool], tokens: Sequence[int]) -> "DeclaredBatch":
        """Build from one flag and one token count per request.

        Raises ValueError when the two lengths differ or a count is negative.
        """
        if len(is_rt) != len(tokens):
            raise ValueError(
                f"declare_batch needs one class and one token count per request: "
                f"got {len(is_rt)} classes and {len(tokens)} counts"
            )
        flags, counts = tuple(map(bool, is_rt)), tuple(map(int, tokens))
        if counts and min(counts) < 0:
            raise ValueError(f"declare_batch: token counts must not be negative, got {min(counts)}")
        rt_tokens = sum(compress(counts, flags))
        return cls(flags, counts, rt_tokens, sum(counts) - rt_tokens)

    @property
    def total_tokens(self) -> int:
        """Tokens of both classes."""
        return self.rt_tokens + self.be_tokens

    @property
    def is_decode(self) -> bool:
        """Whether every request gets one token."""
        return self.total_tokens == len(self.tokens) and max(self.tokens, default=0) == 1


def class_spans(is_rt: Sequence[bool], counts: Sequence[int]) -> Iterator[tuple[bool, int]]:
    """Neighbouring requests of one class as one (is_rt, count) span; empty spans are left out."""
    for flag, group in groupby(zip(is_rt, counts, strict=True), key=lambda pair: pair[0]):
        count = sum(pair[1] for pair in group)
        if count:
            yield flag, count


def in_batch_order(
    low: torch.Tensor, high: torch.Tensor, is_rt: Sequence[bool], counts: Sequence[int]
) -> torch.Tensor:
    """Interleave BE ids (`low`) and RT ids (`high`), each in batch order, into one tensor in batch order.

    low, high: 1-D tensors with sum(counts of BE) and sum(counts of RT) ids. Returns sum(counts) ids.
    Every size is known on the host and the upload is asynchronous, so nothing waits for the device.
    """
    spans = list(class_spans(is_rt, counts)) if len(is_rt) <= MAX_COUNTED_ROWS else None
    if spans is not None and len(spans) <= MAX_CONCATENATED_SPANS:
        parts, taken = [], {False: 0, True: 0}
        for flag, count in spans:
            start = taken[flag]
            parts.append((high if flag else low)[start : start + count])
            taken[flag] = start + count
        return torch.cat(parts) if parts else low[:0]
    index = torch.from_numpy(_gather_index(is_rt, counts, low.numel()))
    if low.device.type != "cpu":
        index = index.pin_memory().to(low.device, non_blocking=True)
    return torch.cat((low, high))[index]


def _gather_index(is_rt: Sequence[bool], counts: Sequence[int], num_low: int) -> np.ndarray:
    """Where each token of the batch sits in cat(low, high): int64, shape (sum(counts),)."""
    rt_token = np.repeat(np.asarray(is_rt, dtype=bool), np.asarray(counts, dtype=np.int64))
    before = np.cumsum(rt_token) - rt_token  # RT tokens before this one
    position = np.arange(rt_token.size, dtype=np.int64)
    return np.where(rt_token, num_low + before, position - before)
