"""One server as the runner sees it: its limit, what is in flight there, and whether it is there at all."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.reply import backoff_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.cli.batch.backend import Backend, Load, ServerFacts
    from bros_sglang.cli.batch.concurrency import Concurrency
    from bros_sglang.cli.batch.request import BatchRequest
    from bros_sglang.cli.batch.settings import TagMode

DOWN_AFTER: Final = 8  # failures in a row, with nothing answered between them
LONGEST_PROBE_PAUSE_S: Final = 15.0


class Lane:
    """The way to one server."""

    def __init__(
        self,
        number: int,
        backend: Backend,
        control: Concurrency,
        clock: Callable[[], float],
        tag_mode: TagMode = "auto",
    ) -> None:
        self.number = number
        self.backend = backend
        self.control = control
        self.facts: ServerFacts | None = None  # None until it has answered once
        self.load: Load | None = None
        self.tag = False
        self.up = asyncio.Event()
        self.failing_since_s: float | None = None  # first failure since the last answer
        self.last_problem = ""
        self.failures_in_a_row = 0
        self.stopping = False
        self._clock = clock
        self._tag_mode = tag_mode
        self._in_flight: dict[BatchRequest, float] = {}  # → when sent; oldest first
        self._freed = asyncio.Event()
        self._paused_until_s = 0.0
        self._probing: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return len(self._in_flight)

    @property
    def is_free(self) -> bool:
        """Whether one more request may go out now."""
        return (
            self.up.is_set()
            and len(self._in_flight) < self.control.limit
            and self._clock() >= self._paused_until_s
        )

    async def connect(self) -> None:
        """Ask the server about itself for the first time. Raises RefusedError or ConnectionError."""
        self.facts = facts = await self.backend.start()
        self.tag = self._tag_mode == "always" or (self._tag_mode == "auto" and facts.is_bros)
        self.up.set()

    async def ready(self) -> None:
        """Wait until one more request may go out, or a stop."""
        while not self.stopping:
            await self.up.wait()
            if self.is_free:
                return
            if len(self._in_flight) >= self.control.limit:
                self.control.on_full()
            self._freed.clear()
            pause_s = self._paused_until_s - self._clock()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), pause_s if pause_s > 0 else None)

    def stop(self) -> None:
        """Hold nobody who waits to send."""
        self.stopping = True
        self.up.set()
        self._freed.set()

    def begin(self, request: BatchRequest) -> float:
        """Note that a request goes out; returns when."""
        now_s = self._in_flight[request] = self._clock()
        return now_s

    def end(self, request: BatchRequest) -> None:
        """Note that its attempt is over."""
        self._in_flight.pop(request, None)
        self._freed.set()

    def wake(self) -> None:
        """Look at the limit again: it may have grown."""
        self._freed.set()

    def answered(self) -> None:
        """Note an answer that shows the server at work (a 4xx is one)."""
        self.failures_in_a_row = 0
        # A last answer may come after a connection was refused: then it is away from now on.
        self.failing_since_s = None if self._probing is None else self._clock()

    def succeeded(self, sent_s: float, work_tokens: int) -> None:
        """Note a completion."""
        self.answered()
        self.control.on_success(sent_s, self._clock(), work_tokens)

    def pushed_back(self, retry_after_s: float | None) -> None:
        """Note a 429 or 503. A server that turns many away is left alone for as long as it asks."""
        now_s = self._clock()
        self._note_failure(now_s)
        if self.control.on_pushback() and retry_after_s:
            self._paused_until_s = max(self._paused_until_s, now_s + retry_after_s)

    def failed(self, problem: str) -> None:
        """Note a lost connection, a 5xx, a time-out or rubbish; after some in a row, look if it is there."""
        self.last_problem = problem
        self.failures_in_a_row += 1
        self._note_failure(self._clock())
        if self.failures_in_a_row >= max(DOWN_AFTER, self.control.limit):
            self.go_down(problem)

    def go_down(self, problem: str) -> None:
        """Send nothing more until a probe succeeds."""
        self.last_problem = problem
        self._note_failure(self._clock())
        if self._probing is None:
            self.up.clear()
            self._probing = asyncio.create_task(self._probe())

    def hopeless(self, now_s: float, give_up_s: float) -> bool:
        """Tell whether nothing was answered for `give_up_s`: it is away, or works on nothing older."""
        since_s = self.failing_since_s
        if since_s is None or now_s - since_s < give_up_s:
            return False
        if not self.up.is_set():
            return True
        oldest_s = next(iter(self._in_flight.values()), now_s)
        return oldest_s > since_s

    async def close(self) -> None:
        """Stop probing and let the server go."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)
        await self.backend.close()

    def _note_failure(self, now_s: float) -> None:
        if self.failing_since_s is None:
            self.failing_since_s = now_s

    async def _probe(self) -> None:
        attempt = 0
        while True:
            attempt += 1
            await asyncio.sleep(min(backoff_s(attempt), LONGEST_PROBE_PAUSE_S))
            if await self._is_back():
                break
        self._probing = None
        self.failures_in_a_row = 0
        self.control.reset()
        self.up.set()
        self._freed.set()

    async def _is_back(self) -> bool:
        if self.facts is not None:
            return await self.backend.is_healthy()
        try:
            await self.connect()
        except (ConnectionError, RefusedError) as error:
            self.last_problem = str(error)
            return False
        return True
