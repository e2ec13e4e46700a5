"""Hand requests out to the servers: runs that share a prefix to one server, retries when they are due.

All methods belong to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bros_sglang.cli.batch.request import BatchRequest

RUN_LENGTH: Final = 32  # neighbours in sending order that go to the same server
LOW_WATER: Final = 2048  # fresh requests below which more are asked for
MAX_WAITING_RETRIES: Final = 2048  # beyond it nothing new goes out


class Feed:
    """The requests on their way. `outstanding` counts those taken and neither finished nor put back."""

    def __init__(self, lanes: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._fresh: deque[BatchRequest] = deque()
        self._lanes: list[deque[BatchRequest]] = [deque() for _ in range(lanes)]
        self._due: list[tuple[float, int, BatchRequest]] = []
        self._sequence = 0
        self._changed = [asyncio.Event() for _ in range(lanes)]
        self._ended = False
        self._stopped = False
        self.outstanding = 0
        self.wanted = asyncio.Event()  # set while more should be read
        self.wanted.set()

    @property
    def waiting_retries(self) -> int:
        """Requests that wait for their next attempt."""
        return len(self._due)

    @property
    def held(self) -> int:
        """Requests read and not taken yet."""
        return len(self._fresh) + sum(map(len, self._lanes))

    @property
    def is_done(self) -> bool:
        """Whether the input is read to its end and everything in it has its line in the ledger."""
        return self._ended and not (self.outstanding or self._due or self.held)

    def offer(self, requests: Iterable[BatchRequest]) -> None:
        """Add what was read."""
        self._fresh.extend(requests)
        self._note()

    def end(self) -> None:
        """Say that the input is read to its end."""
        self._ended = True
        self._note()

    def stop(self) -> None:
        """Hand nothing more out."""
        self._stopped = True
        self._note()

    async def take(self, lane: int) -> BatchRequest | None:
        """Return the next request for a server; None when all is done or the feed was stopped."""
        changed = self._changed[lane]
        while not self._stopped:
            now_s = self._clock()
            request = self._next(lane, now_s)
            if request is not None:
                self.outstanding += 1
                return request
            if self.is_done:
                break
            changed.clear()
            pause_s = max(0.0, self._due[0][0] - now_s) if self._due else None
            try:
                await asyncio.wait_for(changed.wait(), pause_s)
            except TimeoutError:
                continue
        return None

    def finish(self) -> None:
        """Note that a request taken has its line in the ledger."""
        self.outstanding -= 1
        if self._ended and not self.outstanding:
            self._note()

    def put_back(self, request: BatchRequest, due_s: float) -> None:
        """Return a request taken, to be handed out again from `due_s` on."""
        self.outstanding -= 1
        self._sequence += 1
        heapq.heappush(self._due, (due_s, self._sequence, request))
        if self._due[0][2] is request:
            self._note()

    def _next(self, lane: int, now_s: float) -> BatchRequest | None:
        if self._due and self._due[0][0] <= now_s:
            return heapq.heappop(self._due)[2]
        if len(self._due) >= MAX_WAITING_RETRIES:
            return None
        own = self._lanes[lane]
        if not own:
            for _ in range(min(RUN_LENGTH if len(self._lanes) > 1 else 1, len(self._fresh))):
                own.append(self._fresh.popleft())
            if len(self._fresh) < LOW_WATER and not self._ended:
                self.wanted.set()
        if own:
            return own.popleft()
        longest = max(self._lanes, key=len)
        return longest.pop() if longest else None

    def _note(self) -> None:
        for event in self._changed:
            event.set()
