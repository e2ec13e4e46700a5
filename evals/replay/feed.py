"""When which request is sent: open loops by their times, closed loops as seats become free."""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bros_sglang.evals.workloads.request import Workload, WorkloadRequest


class _ClosedLoop:
    """`seats` requests outstanding; the next is issued when the client hears that one has ended."""

    def __init__(self, workload: Workload, seats: int) -> None:
        self._requests = iter(workload)
        self._free_at_s = [0.0] * seats  # a heap
        self._open: set[str] = set()
        self.exhausted = False

    def issue(self, now_s: float) -> Iterator[tuple[WorkloadRequest, float]]:
        while self._free_at_s and self._free_at_s[0] <= now_s and not self.exhausted:
            request = next(self._requests, None)
            if request is None:
                self.exhausted = True
                return
            self._open.add(request.rid)
            yield request, heapq.heappop(self._free_at_s)

    def finished(self, rid: str, heard_s: float) -> None:
        if rid in self._open:
            self._open.remove(rid)
            heapq.heappush(self._free_at_s, heard_s)

    def next_s(self) -> float | None:
        return self._free_at_s[0] if self._free_at_s and not self.exhausted else None


class Feed:
    """The clients: hands out what is due, and hears what ended.

    Arrivals after `until_s` are not sent; closed loops keep their seats filled to the end of the run, so that
    requests that arrived before it finish under the same load.
    """

    def __init__(self, workloads: Sequence[Workload], until_s: float) -> None:
        self._loops = [_ClosedLoop(w, w.closed_loop) for w in workloads if w.closed_loop is not None]
        timed = [request for w in workloads if w.closed_loop is None for request in w]
        timed = [request for request in timed if request.arrival_s < until_s]
        timed.sort(key=lambda request: request.arrival_s)  # stable: ties keep the order of the workloads
        self._timed = deque(timed)
        self._seats_free = bool(self._loops)

    def due(self, now_s: float) -> list[tuple[WorkloadRequest, float]]:
        """Return the requests that have been sent by `now_s`, each with its time of arrival."""
        arrived: list[tuple[WorkloadRequest, float]] = []
        while self._timed and self._timed[0].arrival_s <= now_s:
            request = self._timed.popleft()
            arrived.append((request, request.arrival_s))
        if self._seats_free:
            for loop in self._loops:
                arrived.extend(loop.issue(now_s))
            self._seats_free = any(loop.next_s() is not None for loop in self._loops)
        return arrived

    def next_arrival_s(self) -> float | None:
        """Return when the next request of an open loop comes, or None after the last."""
        return self._timed[0].arrival_s if self._timed else None

    def next_send_s(self) -> float | None:
        """Return when the next request of any loop comes, as far as that is known; None where it is not."""
        times = [self.next_arrival_s(), *(loop.next_s() for loop in self._loops)]
        return min((time_s for time_s in times if time_s is not None), default=None)

    def exhausted(self) -> bool:
        """Tell whether nothing more will come, whatever ends."""
        return not self._timed and all(loop.exhausted for loop in self._loops)

    def finished(self, rid: str, heard_s: float) -> None:
        """Hear at `heard_s` (never earlier than now) that a request ended, in whichever way."""
        for loop in self._loops:
            loop.finished(rid, heard_s)
        self._seats_free = bool(self._loops)
