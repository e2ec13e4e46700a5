"""Work a corpus off: the event loop in the middle of reader, servers and ledger."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bros_sglang.cli.batch.feed import Feed
from bros_sglang.cli.batch.lines import Usage, failure_line, output_line, rejected_line
from bros_sglang.cli.batch.problem import RefusedError, StoppedError
from bros_sglang.cli.batch.reader_thread import ReaderThread
from bros_sglang.cli.batch.reply import Action, Reply, Verdict, backoff_s, judge
from bros_sglang.cli.batch.tag import tagged_body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bros_sglang.cli.batch.lane import Lane
    from bros_sglang.cli.batch.ledger import Ledger
    from bros_sglang.cli.batch.prefix_order import Window
    from bros_sglang.cli.batch.request import BatchRequest
    from bros_sglang.cli.batch.settings import RunSettings
    from bros_sglang.cli.batch.tally import Tally

LOAD_EVERY_S: Final = 1.0  # between two looks at a server's queue
MAX_PUSHBACKS: Final = 200  # of one request, while others are taken
_BUSY_PAUSE_S: Final = 0.5  # before a server that is away is asked again for this request


@dataclass(slots=True, eq=False)
class Runner:
    """One start of a run. `run()` returns when everything is done or a stop was asked for."""

    settings: RunSettings
    lanes: Sequence[Lane]
    ledger: Ledger
    tally: Tally
    deadline_at_s: float | None = None  # Unix time at which the completion window ends
    feed: Feed = field(init=False)
    input_ended: bool = False
    stop_reason: BaseException | None = None  # StoppedError, RefusedError or what the reader raised
    interrupted: bool = False
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        """Make the feed; needs a running loop."""
        self.feed = Feed(len(self.lanes), time.monotonic)

    async def run(self, windows: Iterator[Window]) -> None:
        """Send everything in `windows`. Raises what stopped it early, after what was in flight has ended."""
        helpers = [
            asyncio.create_task(self._read(windows)),
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._watch_disk()),
            *(asyncio.create_task(self._watch_load(lane)) for lane in self.lanes),
        ]
        try:
            await asyncio.gather(*(self._dispatch(lane) for lane in self.lanes))
            while self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in [*helpers, *self._tasks]:
                task.cancel()
            await asyncio.gather(*helpers, *self._tasks, return_exceptions=True)
        if self.stop_reason is not None:
            raise self.stop_reason

    def stop(self, reason: BaseException | None = None) -> None:
        """Send nothing new; what is in flight ends."""
        if reason is not None and self.stop_reason is None:
            self.stop_reason = reason
        self.feed.stop()
        for lane in self.lanes:
            lane.stop()

    def interrupt(self) -> None:
        """Stop because somebody asked for it."""
        self.interrupted = True
        self.stop()

    def abandon(self) -> None:
        """Drop what is in flight, too."""
        self.interrupt()
        for task in self._tasks:
            task.cancel()

    async def _read(self, windows: Iterator[Window]) -> None:
        reader = ReaderThread(windows)
        try:
            while True:
                await self.feed.wanted.wait()
                window = await reader.next()
                if window is None:
                    break
                self._reject(window)
                await self.ledger.room()
                self.feed.wanted.clear()
                self.feed.offer(window.requests)
                if not window.requests:
                    self.feed.wanted.set()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 (raised again by run())
            self.stop(error)
        else:
            self.input_ended = True
            self.feed.end()

    def _reject(self, window: Window) -> None:
        first = next(iter(window.rejected), None)
        if first is not None and first.code == "model_not_found" and not (window.requests or self.tally.sent):
            raise RefusedError(first.message)  # the whole corpus asks for another model: not a line's fault
        for rejected in window.rejected:
            if self.settings.strict:
                raise RefusedError(f"{rejected.message} (--strict)")
            self.ledger.append_error(rejected_line(rejected))
            self.tally.rejected += 1

    async def _dispatch(self, lane: Lane) -> None:
        while True:
            await lane.ready()
            request = await self.feed.take(lane.number)
            if request is None:  # all is done: let those go, too, who wait for a server that is away
                for each in self.lanes:
                    each.stop()
                return
            if not lane.is_free:  # it was, before a request came
                self.feed.put_back(request, time.monotonic())
                continue
            task = asyncio.create_task(self._attempt(lane, request, lane.begin(request)))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.stop(error)  # a fault of this program must end the run, not hang it

    async def _attempt(self, lane: Lane, request: BatchRequest, sent_s: float) -> None:
        deadline_s = None
        if self.deadline_at_s is not None:
            deadline_s = int(self.deadline_at_s - time.time())
        body = tagged_body(request.payload, request.custom_params, tag=lane.tag, deadline_s=deadline_s)
        self.tally.sent += 1
        try:
            reply = await lane.backend.send(request.url, body)
        finally:
            lane.end(request)
        verdict = judge(reply)
        if verdict.action is Action.KEEP:
            self._keep(lane, request, reply, verdict, sent_s)
        elif verdict.action is Action.REFUSED:
            lane.answered()
            request.attempts += 1
            self._give_up(request, reply, verdict)
        else:
            await self._again(lane, request, reply, verdict)
        await self._make_room()

    async def _make_room(self) -> None:
        try:
            await self.ledger.room()
        except StoppedError as error:
            self.stop(error)

    def _keep(self, lane: Lane, request: BatchRequest, reply: Reply, verdict: Verdict, sent_s: float) -> None:
        usage = (verdict.completion.usage if verdict.completion else None) or Usage()
        self.ledger.append_output(output_line(request, reply.status, reply.request_id, reply.body))
        tally = self.tally
        tally.ok += 1
        tally.failures_in_a_row = 0
        tally.tokens.add(usage)
        tally.session_tokens.add(usage)
        details = usage.prompt_tokens_details
        cached = (details.cached_tokens or 0) if details else 0
        work = max(1, (usage.prompt_tokens or 0) - cached + (usage.completion_tokens or 0))
        lane.succeeded(sent_s, work)
        self.feed.finish()

    async def _again(self, lane: Lane, request: BatchRequest, reply: Reply, verdict: Verdict) -> None:
        """Put a request back for another attempt, or give it up."""
        self.tally.retries[verdict.code] += 1
        now_s = time.monotonic()
        lane.last_problem = verdict.message
        if verdict.action is Action.WAIT_FOR_SERVER:
            lane.go_down(verdict.message)
            self.feed.put_back(request, now_s + _BUSY_PAUSE_S)
        elif verdict.action is Action.BACK_OFF:
            request.pushbacks += 1
            lane.pushed_back(reply.retry_after_s)
            if request.pushbacks >= MAX_PUSHBACKS and lane.failing_since_s is None:
                self._give_up(request, reply, verdict)
                return
            wait_s = backoff_s(min(request.pushbacks, 7))
            if reply.retry_after_s is not None:
                wait_s = reply.retry_after_s * (1 + 0.1 * wait_s / 60) + 0.05 * wait_s
            self.feed.put_back(request, now_s + wait_s)
        else:
            request.attempts += 1
            lane.failed(verdict.message)
            if request.attempts < self.settings.max_attempts:
                self.feed.put_back(request, now_s + backoff_s(request.attempts))
            elif lane.failures_in_a_row > 1 and not await lane.backend.is_healthy():
                # The server is what is wrong, not this request: it waits for it, and keeps its last attempt.
                request.attempts -= 1
                lane.go_down(verdict.message)
                self.feed.put_back(request, now_s + backoff_s(request.attempts))
            else:
                self._give_up(request, reply, verdict)

    def _give_up(self, request: BatchRequest, reply: Reply, verdict: Verdict) -> None:
        self.ledger.append_error(
            failure_line(request, reply.status, reply.request_id, reply.body, verdict.code, verdict.message)
        )
        tally = self.tally
        tally.failed += 1
        tally.failures_in_a_row += 1
        self.feed.finish()
        most = self.settings.max_failures_in_a_row
        if most and tally.failures_in_a_row >= most:
            self.stop(
                StoppedError(
                    f"the last {most} requests all failed, the last one with: {verdict.message}; mend it and "
                    "run again (`bros batch retry` asks for the failed ones), or go on with "
                    "--max-failures-in-a-row 0"
                )
            )

    async def _watch(self) -> None:
        """Stop when no server has answered anything for too long."""
        give_up_s = self.settings.give_up_s
        while True:
            await asyncio.sleep(min(1.0, give_up_s / 4))
            now_s = time.monotonic()
            if all(lane.hopeless(now_s, give_up_s) for lane in self.lanes):
                problem = self.lanes[0].last_problem
                self.stop(
                    StoppedError(
                        f"no server has answered for {give_up_s:g} s (last: {problem}); "
                        "run the same command again when it is back"
                    )
                )
                for task in self._tasks:  # nobody is there to answer them
                    task.cancel()
                return

    async def _watch_disk(self) -> None:
        await self.ledger.failed.wait()
        self.stop(self.ledger.problem)

    async def _watch_load(self, lane: Lane) -> None:
        while True:
            await asyncio.sleep(LOAD_EVERY_S)
            if not lane.up.is_set():
                continue
            lane.load = await lane.backend.load()
            if lane.load is not None:
                lane.control.on_queue(lane.load.waiting, lane.load.running, time.monotonic())
            lane.wake()
