"""Handing out: every request once, runs of neighbours, retries when due."""

import asyncio
import random

from bros_sglang.cli.batch.feed import RUN_LENGTH, Feed
from bros_sglang.cli.batch.request import BatchRequest


def request(number):
    return BatchRequest(number, str(number), str(number), "/v1/completions", b"{}", b"", "m")


async def test_every_request_is_finished_once_by_some_server():
    draw = random.Random(1)
    now = [0.0]
    feed = Feed(3, lambda: now[0])
    finished = []

    async def work(lane):
        while (item := await feed.take(lane)) is not None:
            await asyncio.sleep(0)
            if draw.random() < 0.3:
                feed.put_back(item, now[0] + draw.random() * 0.01)
            else:
                finished.append(item.place)
                feed.finish()
            now[0] += 0.001

    workers = [asyncio.create_task(work(lane)) for lane in range(3)]
    for start in range(0, 500, 100):
        feed.offer([request(number) for number in range(start, start + 100)])
        await asyncio.sleep(0)
    feed.end()
    await asyncio.wait_for(asyncio.gather(*workers), 20)
    assert sorted(finished) == list(range(500))
    assert feed.is_done


async def test_neighbours_go_to_one_server():
    feed = Feed(2, lambda: 0.0)
    feed.offer([request(number) for number in range(4 * RUN_LENGTH)])
    first, second = [], []
    for _ in range(RUN_LENGTH):
        first.append((await feed.take(0)).place)
        second.append((await feed.take(1)).place)
    assert first == list(range(RUN_LENGTH))
    assert second == list(range(RUN_LENGTH, 2 * RUN_LENGTH))


async def test_an_idle_server_takes_over_from_a_slow_one():
    feed = Feed(2, lambda: 0.0)
    feed.offer([request(number) for number in range(RUN_LENGTH)])
    feed.end()
    assert (await feed.take(0)).place == 0
    assert (await feed.take(1)).place == RUN_LENGTH - 1  # from the far end


async def test_a_retry_waits_until_it_is_due_and_a_stop_ends_the_wait():
    now = [0.0]
    feed = Feed(1, lambda: now[0])
    feed.offer([request(0)])
    feed.end()
    feed.put_back(await feed.take(0), 100.0)
    waiting = asyncio.create_task(feed.take(0))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    assert not feed.is_done
    feed.stop()
    assert await asyncio.wait_for(waiting, 1) is None
