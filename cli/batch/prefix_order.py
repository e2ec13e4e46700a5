"""Send requests that share a prompt prefix together, within a bounded window.

A radix cache keeps what it saw last. Requests whose prompts begin alike hit it when they follow each other;
spread over a large corpus, they miss. So a window of requests is sorted by the text of their prompts before
it goes out, and begins where the window before it ended. No request is delayed by more than the window.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from bros_sglang.cli.batch.request import BatchRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bros_sglang.cli.batch.problem import Rejected

MAX_WINDOW_BYTES: Final = 8 * 1024 * 1024
_SAMPLE_EVERY: Final = 4  # windows; the statistic below costs more than the sort


@dataclass(slots=True)
class Window:
    """What was read together: requests in sending order, and lines to refuse."""

    requests: list[BatchRequest] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


@dataclass(slots=True)
class PrefixOrder:
    """Cuts a stream into windows and orders each. `window` of 1 or less keeps the input's order.

    `shared_before` and `shared_after` tell what it brings: the share of prompt bytes that repeat the
    beginning of the request before, in the input's order and as sent (measured on one window in four).
    """

    window: int
    _last: bytes = b""
    _count: int = 0
    _bytes: int = 0
    _shared: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def shared_before(self) -> float:
        """Share of prompt bytes repeated from the request before, as the input has them."""
        return self._shared[0] / max(1, self._bytes)

    @property
    def shared_after(self) -> float:
        """Share of prompt bytes repeated from the request before, as sent."""
        return self._shared[1] / max(1, self._bytes)

    def windows(self, items: Iterable[BatchRequest | Rejected]) -> Iterator[Window]:
        """Yield ordered windows; the last one may be short."""
        current, held = Window(), 0
        limit = max(self.window, 256)
        for item in items:
            if isinstance(item, BatchRequest):
                current.requests.append(item)
                held += len(item.payload) + len(item.prefix_key)
            else:
                current.rejected.append(item)
                held += 256
            if len(current.requests) + len(current.rejected) >= limit or held >= MAX_WINDOW_BYTES:
                yield self._ordered(current)
                current, held = Window(), 0
        if current.requests or current.rejected:
            yield self._ordered(current)

    def _ordered(self, window: Window) -> Window:
        requests = window.requests
        if self.window > 1 and requests:
            arrived = [request.prefix_key for request in requests]
            requests.sort(key=lambda request: request.prefix_key)
            start = bisect_left(requests, self._last, key=lambda request: request.prefix_key)
            requests[:] = requests[start:] + requests[:start]
            if self._count % _SAMPLE_EVERY == 0:
                sent = [request.prefix_key for request in requests]
                self._bytes += sum(map(len, sent))
                self._shared[0] += _shared_bytes(arrived)
                self._shared[1] += _shared_bytes(sent)
            self._count += 1
            self._last = requests[-1].prefix_key
        for request in requests:
            request.prefix_key = b""  # has done its work; prompts are long
        return window


def common_prefix(left: bytes, right: bytes) -> int:
    """Return the length of the common beginning, in O(log n) comparisons of slices."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _shared_bytes(keys: list[bytes]) -> int:
    return sum(common_prefix(left, right) for left, right in pairwise(keys))
