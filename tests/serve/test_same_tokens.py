"""Greedy outputs under bros equal stock's, whatever was preempted, parked or chunked on the way."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer

pytestmark = pytest.mark.server

# Without headroom best-effort requests fill the pool, and real-time ones have to take room from them.
NO_HEADROOM = ("--bros-headroom-min-share", "0", "--bros-headroom-max-share", "0")
POOL = ("--max-total-tokens", "1024", "--max-running-requests", "12", *NO_HEADROOM)
REQUESTS = 40


def _requests() -> list[dict[str, Any]]:
    """Best-effort requests that fill the pool, and real-time ones that come while they run."""
    rng = random.Random(7)
    requests = []
    for index in range(REQUESTS):
        realtime = index % 2 == 1
        length = rng.randint(100, 300) if index % 5 == 0 else rng.randint(20, 120)
        if index in (3, 7, 11):
            length = 650  # more than best-effort requests leave free of a pool of 1,024
        requests.append(
            {
                "rid": f"{'rt' if realtime else 'be'}-{index}",
                "input_ids": [rng.randint(8, 1000) for _ in range(length)],
                "sampling_params": {
                    "temperature": 0,
                    "max_new_tokens": 24 if realtime else 120,
                    "ignore_eos": True,
                    "custom_params": {
                        "bros": {"class": "rt", "ttft_ms": 50, "tpot_ms": 10} if realtime else {"class": "be"}
                    },
                },
            }
        )
    return requests


async def _all(url: str, requests: list[dict[str, Any]], *, at_once: bool) -> dict[str, dict[str, Any]]:
    async with httpx.AsyncClient(timeout=240.0, trust_env=False) as client:

        async def one(index: int, body: dict[str, Any]) -> dict[str, Any]:
            if at_once:
                # Real-time requests arrive one after another while best-effort ones are under way.
                await asyncio.sleep(0.05 * index if body["rid"].startswith("rt") else 0)
            response = await client.post(f"{url}/generate", json=body)
            assert response.status_code == 200, response.text
            result: dict[str, Any] = response.json()
            return result

        if at_once:
            results = await asyncio.gather(*(one(i, body) for i, body in enumerate(requests)))
        else:
            results = [await one(i, body) for i, body in enumerate(requests)]
    return {body["rid"]: result for body, result in zip(requests, results, strict=True)}


@pytest.fixture(scope="module")
def stock_outputs(start_server: StartServer) -> dict[str, list[int]]:
    server = start_server("--schedule-policy", "fcfs", "--max-total-tokens", "8192")
    results = asyncio.run(_all(server.url, _requests(), at_once=False))
    server.stop()
    return {rid: result["output_ids"] for rid, result in results.items()}


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--page-size", "16"),
        ("--disable-overlap-schedule",),
    ],
    ids=["overlap", "pages of 16", "no overlap"],
)
def test_outputs_equal_stock(
    start_server: StartServer, stock_outputs: dict[str, list[int]], flags: tuple[str, ...]
) -> None:
    server = start_server("--policy", "bros", *POOL, *flags)
    results = asyncio.run(_all(server.url, _requests(), at_once=True))
    preempted = [rid for rid, result in results.items() if result["meta_info"]["num_retractions"]]
    assert preempted, "the pool was never short: the test shows nothing"
    assert all(rid.startswith("be") for rid in preempted), "a real-time request was preempted"
    wrong = [rid for rid, result in results.items() if result["output_ids"] != stock_outputs[rid]]
    assert wrong == []
    assert server.exit_status() is None
    server.stop()


def test_a_request_preempted_many_times_ends_with_the_same_tokens(
    start_server: StartServer, stock_outputs: dict[str, list[int]]
) -> None:
    del stock_outputs
    rng = random.Random(3)
    victim = {
        "rid": "be-victim",
        "input_ids": [rng.randint(8, 1000) for _ in range(200)],
        "sampling_params": {
            "temperature": 0,
            "max_new_tokens": 400,
            "ignore_eos": True,
            "custom_params": {"bros": {"class": "be"}},
        },
    }
    server = start_server("--policy", "bros", *POOL, "--bros-max-preemptions", "1000")

    async def run() -> tuple[dict[str, Any], dict[str, Any]]:
        async with httpx.AsyncClient(timeout=240.0, trust_env=False) as client:
            alone = (await client.post(f"{server.url}/generate", json=victim)).json()
            await client.post(f"{server.url}/flush_cache")
            disturbed = asyncio.create_task(
                client.post(f"{server.url}/generate", json=victim | {"rid": "be-again"})
            )
            for index in range(40):
                if disturbed.done():
                    break
                intruder = {
                    "rid": f"rt-{index}",
                    "input_ids": [rng.randint(8, 1000) for _ in range(700)],
                    "sampling_params": {
                        "temperature": 0,
                        "max_new_tokens": 4,
                        "ignore_eos": True,
                        "custom_params": {"bros": {"class": "rt"}},
                    },
                }
                response = await client.post(f"{server.url}/generate", json=intruder)
                assert response.status_code == 200
            return alone, (await disturbed).json()

    alone, disturbed = asyncio.run(run())
    assert disturbed["meta_info"]["num_retractions"] >= 10
    assert disturbed["output_ids"] == alone["output_ids"]
    server.stop()
