"""SGLang's `waiting_queue`, as an object that keeps the classes apart and shows a pass only its front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from bros_sglang.policies.waiting import BestEffortQueue, RealTimeQueue

RT_WINDOW = 64  # more requests than a step can prefill
BE_WINDOW = 32


class WaitingQueue:
    """What SGLang's code does with its list of waiting requests, over the two ordered queues.

    Iteration is real-time first, then best-effort. `pop(i)` and `len` mean what they mean on a list; they
    are for aborts and reports. The loop itself uses `window` and `take`.
    """

    def __init__(self, lost_patience: float, redo_tokens: Callable[[Any], int]) -> None:
        self.rt: RealTimeQueue[Any] = RealTimeQueue()
        self.be: BestEffortQueue[Any] = BestEffortQueue()
        self._lost_patience = lost_patience
        self._redo_tokens = redo_tokens  # tokens that a preempted request has to compute again

    def __len__(self) -> int:
        return len(self.rt) + len(self.be)

    def __iter__(self) -> Iterator[Any]:
        yield from self.rt
        yield from self.be

    def append(self, req: Any) -> None:
        """Queue a request; a preempted best-effort one goes before new ones."""
        state = req.bros
        if state.is_rt:
            self.rt.add(req, state.due_s, state.slo.ttft_s * self._lost_patience)
        elif state.preemptions:
            self.be.add_resumed(req, self._redo_tokens(req))
        else:
            self.be.add(req, state.group, state.urgent_at_s)

    def extend(self, reqs: Iterable[Any]) -> None:
        """Queue several requests."""
        for req in reqs:
            self.append(req)

    def pop(self, index: int) -> Any:
        """Take out the request at a position of the iteration order."""
        req = next(islice(iter(self), index, None))
        self.discard(req)
        return req

    def discard(self, req: Any) -> bool:
        """Take a request out; tell whether it was there."""
        return self.rt.discard(req) or self.be.discard(req)

    def window(self, now_s: float, *, with_be: bool, given_up: frozenset[int] = frozenset()) -> list[Any]:
        """Return the requests that a pass looks at, in order of preference.

        given_up: ids of real-time requests that stand behind the others, unless they have waited too long.
        """
        front = self.rt.head(RT_WINDOW, now_s)
        if given_up:
            front.sort(key=lambda req: id(req) in given_up and not self._is_long_late(req, now_s))
        if with_be:
            front += self.be.head(BE_WINDOW, now_s)
        return front

    def _is_long_late(self, req: Any, now_s: float) -> bool:
        return bool(now_s - req.bros.due_s > req.bros.slo.ttft_s * self._lost_patience)

    def take(self, req: Any) -> None:
        """Take out a request that the pass admitted."""
        if not self.rt.discard(req):
            self.be.admitted(req)
