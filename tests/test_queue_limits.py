"""Who is let in while others wait, and what the others are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bros_sglang.queue_limits import QueueLimits, RefusedError
from bros_sglang.request_class import RequestClass
from bros_sglang.settings import BrosSettings

RT, BE = RequestClass.RT, RequestClass.BE


class Server:
    """A scheduler of which the test says who waits."""

    def __init__(self, waiting: Callable[[], tuple[int, int]]) -> None:
        self.waiting = waiting
        self.now_s = 100.0
        self.asked = 0
        self.limits = QueueLimits(self._ask, lambda: self.now_s)
        self.refused: list[tuple[RequestClass, int]] = []
        self.limits.on_refused = lambda which, count: self.refused.append((which, count))

    async def _ask(self) -> tuple[int, int]:
        self.asked += 1
        await asyncio.sleep(0)
        return self.waiting()


async def _refusal(limits: QueueLimits, which: RequestClass, count: int, config: BrosSettings) -> Any:
    with pytest.raises(RefusedError) as caught:
        await limits.enter(which, count, config)
    return caught.value.error


async def test_without_a_limit_nobody_is_asked() -> None:
    server = Server(lambda: (10**6, 10**6))
    for _ in range(1000):
        await server.limits.enter(BE, 1, BrosSettings())
    assert server.asked == 0


async def test_below_the_limit_nobody_is_asked_and_above_it_the_scheduler_is() -> None:
    config = BrosSettings(max_queued_be=3)
    server = Server(lambda: (0, 3))
    for _ in range(3):
        await server.limits.enter(BE, 1, config)
    assert server.asked == 0
    error = await _refusal(server.limits, BE, 1, config)
    assert (error.status, error.kind, error.code) == (429, "requests", "rate_limit_exceeded")
    assert "best-effort" in error.message
    assert 1 <= error.retry_after_s <= 60
    assert server.asked == 1
    assert server.refused == [(BE, 1)]
    await server.limits.enter(RT, 1, config)  # the other class does not notice

    server.now_s += 1.0
    server.waiting = lambda: (0, 1)  # two of the three run now
    await server.limits.enter(BE, 1, config)
    await server.limits.enter(BE, 1, config)  # let in since the question was asked: counted
    assert (await _refusal(server.limits, BE, 1, config)).status == 429


async def test_best_effort_sheds_first() -> None:
    config = BrosSettings(max_queued_rt=2)
    server = Server(lambda: (2, 0))
    await server.limits.enter(BE, 1, config)
    for _ in range(2):
        await server.limits.enter(RT, 1, config)
    assert (await _refusal(server.limits, BE, 1, config)).status == 429
    server.waiting = lambda: (1, 0)
    server.now_s += 1.0
    await server.limits.enter(BE, 1, config)
    await server.limits.enter(RT, 1, config)


async def test_no_places_at_all_is_a_closed_door() -> None:
    server = Server(lambda: (0, 0))
    assert (await _refusal(server.limits, BE, 1, BrosSettings(max_queued_be=0))).status == 429
    await server.limits.enter(RT, 1, BrosSettings(max_queued_be=0))


async def test_a_request_that_can_never_wait_is_a_bad_request() -> None:
    server = Server(lambda: (0, 0))
    error = await _refusal(server.limits, BE, 9, BrosSettings(max_queued_be=8))
    assert (error.status, error.retry_after_s) == (400, None)
    assert "send it in parts" in error.message


async def test_retry_after_follows_the_pace() -> None:
    config = BrosSettings(max_queued_be=100)
    server = Server(lambda: (0, 100))
    for _ in range(140):
        server.limits._open[BE] += 1
    for _ in range(20):  # two a second
        server.now_s += 0.5
        server.limits.leave(BE, 1)
    error = await _refusal(server.limits, BE, 1, config)
    assert 10 <= error.retry_after_s <= 16  # a quarter of 100, at two a second


async def test_one_question_serves_all_and_a_client_that_hangs_up_does_not_end_it() -> None:
    config = BrosSettings(max_queued_be=4)
    answer: asyncio.Event = asyncio.Event()
    server = Server(lambda: (0, 2))

    async def slow() -> tuple[int, int]:
        server.asked += 1
        await answer.wait()
        return 0, 2

    server.limits._ask = slow
    for _ in range(4):
        await server.limits.enter(BE, 1, config)
    tasks = [asyncio.create_task(server.limits.enter(BE, 1, config)) for _ in range(6)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    answer.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert sum(result is None for result in results) == 2  # two places, and not one more
    assert sum(isinstance(result, RefusedError) for result in results) == 3
    assert server.asked == 1


async def test_a_failed_question_is_asked_again() -> None:
    config = BrosSettings(max_queued_be=1)
    server = Server(lambda: (0, 0))

    async def failing() -> tuple[int, int]:
        raise ConnectionError

    ask, server.limits._ask = server.limits._ask, failing
    await server.limits.enter(BE, 1, config)
    with pytest.raises(ConnectionError):
        await server.limits.enter(BE, 1, config)
    server.limits._ask = ask
    await server.limits.enter(BE, 1, config)


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "start", "end"]), st.sampled_from(RequestClass), st.integers(1, 3)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(0, 5) | st.none(), st.integers(0, 5) | st.none())
def test_never_more_wait_than_may(steps: Any, max_rt: int | None, max_be: int | None) -> None:
    """Whatever comes and goes: nobody is let in beyond a limit, and the books go back to nothing."""
    config = BrosSettings(max_queued_rt=max_rt, max_queued_be=max_be)
    waiting = {RT: 0, BE: 0}
    running: list[RequestClass] = []
    server = Server(lambda: (waiting[RT], waiting[BE]))

    async def run() -> None:
        for action, which, count in steps:
            server.now_s += 1.0
            if action == "enter":
                rt_full = max_rt is not None and waiting[RT] >= max_rt
                try:
                    await server.limits.enter(which, count, config)
                except RefusedError:
                    limit = config.max_queued(which)
                    assert (limit is not None and waiting[which] + count > limit) or (which is BE and rt_full)
                else:
                    waiting[which] += count
                    limit = config.max_queued(which)
                    assert limit is None or waiting[which] <= limit
                    assert not (which is BE and rt_full)
            elif action == "start" and waiting[which]:
                waiting[which] -= 1
                running.append(which)
            elif action == "end" and running:
                server.limits.leave(running.pop(), 1)
        for which in running:
            server.limits.leave(which, 1)
        for which, count in waiting.items():
            server.limits.leave(which, count)
        assert server.limits._open == {RT: 0, BE: 0}

    asyncio.run(run())
