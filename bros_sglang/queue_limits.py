"""How many requests of each class may wait: more are refused before anything is done for them.

Kept by the process that serves HTTP. While fewer requests of a class are open than may wait, nobody is asked.
Beyond that the scheduler says how many wait, in order with the requests sent to it before, and those let in
since it was asked are added. What was let in is never taken back.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from bros_sglang.openai_errors import OpenAIError
from bros_sglang.request_class import RequestClass
from bros_sglang.settings import BrosSettings

_READING_LASTS_S: Final = 0.02
_RATE_OVER_S: Final = 30.0
_RETRY_MOST_S: Final = 60  # what OpenAI's own clients will wait
_RETRY_UNKNOWN_S: Final = {RequestClass.RT: 1, RequestClass.BE: 10}
_NAMES: Final = {RequestClass.RT: "real-time", RequestClass.BE: "best-effort"}


class RefusedError(ValueError):
    """A request that is not let in. A ValueError, which SGLang's routes answer instead of failing."""

    def __init__(self, error: OpenAIError) -> None:
        super().__init__(error.message)
        self.error = error


class _Reading(NamedTuple):
    asked_s: float
    waiting: dict[RequestClass, int]
    let_in: dict[RequestClass, int]  # since the start, when it was asked


class QueueLimits:
    """Lets requests in, or refuses them. `ask` returns how many real-time and best-effort ones wait."""

    def __init__(self, ask: Callable[[], Awaitable[tuple[int, int]]], clock: Callable[[], float]) -> None:
        self._ask = ask
        self._clock = clock
        self._open = dict.fromkeys(RequestClass, 0)
        self._let_in = dict.fromkeys(RequestClass, 0)
        self._ended: dict[RequestClass, deque[tuple[float, int]]] = {which: deque() for which in RequestClass}
        self._reading: _Reading | None = None
        self._asking: asyncio.Task[_Reading] | None = None
        self.on_refused: Callable[[RequestClass, int], None] | None = None  # a counter's increment

    async def enter(self, request_class: RequestClass, count: int, settings: BrosSettings) -> None:
        """Let a request with `count` answers in; raises RefusedError. Whoever is let in leaves again."""
        if request_class is RequestClass.BE and settings.max_queued_rt is not None:
            waiting_rt = await self._queued_if_above(RequestClass.RT, settings.max_queued_rt - 1)
            if waiting_rt >= settings.max_queued_rt:
                why = f"{waiting_rt} real-time requests are waiting, which go first"
                self._refuse(request_class, count, self._open[request_class], why)
        limit = settings.max_queued(request_class)
        if limit is not None:
            if 0 < limit < count:
                why = f"at most {limit} {_NAMES[request_class]} ones may wait; send it in parts"
                raise RefusedError(OpenAIError(400, f"the request asks for {count} answers, and {why}"))
            queued = await self._queued_if_above(request_class, limit - count)
            if queued > limit - count:
                why = f"{queued} are waiting, and at most {limit} may"
                self._refuse(request_class, count, queued, why)
        # Nothing is awaited between the last look at the queue and this.
        self._open[request_class] += count
        self._let_in[request_class] += count

    def leave(self, request_class: RequestClass, count: int) -> None:
        """Note that a request that was let in has ended, in whatever way."""
        self._open[request_class] -= count
        ended = self._ended[request_class]
        now_s = self._clock()
        ended.append((now_s, count))
        while ended[0][0] < now_s - _RATE_OVER_S:
            ended.popleft()

    async def _queued_if_above(self, request_class: RequestClass, bound: int) -> int:
        """Return how many wait where that may be more than `bound`; else some number up to `bound`."""
        if self._open[request_class] <= bound:
            return self._open[request_class]
        reading = self._reading
        if reading is None or self._clock() - reading.asked_s > _READING_LASTS_S:
            if self._asking is None:
                self._asking = asyncio.create_task(self._read())
            # One client that hangs up must not end the question for the others.
            reading = await asyncio.shield(self._asking)
        since = self._let_in[request_class] - reading.let_in[request_class]
        return min(reading.waiting[request_class] + since, self._open[request_class])

    async def _read(self) -> _Reading:
        asked_s, let_in = self._clock(), dict(self._let_in)
        try:
            rt, be = await self._ask()
            self._reading = _Reading(asked_s, {RequestClass.RT: rt, RequestClass.BE: be}, let_in)
            return self._reading
        finally:
            self._asking = None

    def _refuse(self, request_class: RequestClass, count: int, queued: int, why: str) -> None:
        if self.on_refused is not None:
            self.on_refused(request_class, count)
        name = _NAMES[request_class]
        raise RefusedError(
            OpenAIError(
                429,
                f"too many {name} requests: {why}; try again later",
                kind="requests",
                code="rate_limit_exceeded",
                retry_after_s=self._retry_after_s(request_class, queued),
            )
        )

    def _retry_after_s(self, request_class: RequestClass, queued: int) -> int:
        """Return when a quarter of the queue is worked off at the pace of the last seconds."""
        now_s = self._clock()
        recent = [(at_s, count) for at_s, count in self._ended[request_class] if at_s >= now_s - _RATE_OVER_S]
        if not recent:
            return _RETRY_UNKNOWN_S[request_class]
        per_s = sum(count for _, count in recent) / max(1.0, now_s - recent[0][0])
        return min(_RETRY_MOST_S, max(1, math.ceil(queued / 4 / per_s)))
