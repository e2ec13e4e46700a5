"""When which request is sent: open loops by their times, closed loops as seats become free."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bros_sglang.evals.workloads.request import Workload, WorkloadRequest


class _ClosedLoop:
    """`seats` requests outstanding; the next is issued when one ends."""

    def __init__(self, workload: Workload, seats: int) -> None:
        self._requests = iter(workload)
        self._free = seats
        self._open: set[str] = set()
        self.exhausted = False

    def issue(self) -> Iterator[WorkloadRequest]:
        while self._free:
            request = next(self._requests, None)
            if request is None:
                self.exhausted = True
                return
            self._free -= 1
            self._open.add(request.rid)
            yield request

    def finished(self, rid: str) -> None:
        if rid in self._open:
            self._open.remove(rid)
            self._free += 1


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
        """Return the requests that have arrived by `now_s`, each with its time of arrival."""
        arrived: list[tuple[WorkloadRequest, float]] = []
        while self._timed and self._timed[0].arrival_s <= now_s:
            request = self._timed.popleft()
            arrived.append((request, request.arrival_s))
        if self._seats_free:
            self._seats_free = False
            for loop in self._loops:
                arrived.extend((request, now_s) for request in loop.issue())
        return arrived

    def next_arrival_s(self) -> float | None:
        """Return when the next request of an open loop comes, or None after the last."""
        return self._timed[0].arrival_s if self._timed else None

    def exhausted(self) -> bool:
        """Tell whether nothing more will come, whatever ends."""
        return not self._timed and all(loop.exhausted for loop in self._loops)

    def finished(self, rid: str) -> None:
        """Hear that a request ended, in whichever way."""
        for loop in self._loops:
            loop.finished(rid)
        self._seats_free = bool(self._loops)
