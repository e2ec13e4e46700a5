"""Two tensor-parallel ranks, each with a scheduler and a clock of its own, take the same decisions."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer

pytestmark = [pytest.mark.server, pytest.mark.slow]


async def _load(url: str) -> list[httpx.Response]:
    rng = random.Random(5)

    def body(index: int) -> dict[str, Any]:
        realtime = index % 3 == 0
        tag = {"class": "rt", "ttft_ms": 200, "tpot_ms": 30} if realtime else {"class": "be"}
        return {
            "input_ids": [rng.randint(8, 1000) for _ in range(rng.randint(20, 400))],
            "sampling_params": {
                "temperature": 0,
                "max_new_tokens": 20 if realtime else 60,
                "ignore_eos": True,
                "custom_params": {"bros": tag},
            },
        }

    async with httpx.AsyncClient(timeout=240.0, trust_env=False) as client:

        async def one(index: int) -> httpx.Response:
            await asyncio.sleep(rng.random() * 4)
            return await client.post(f"{url}/generate", json=body(index))

        return list(await asyncio.gather(*(one(index) for index in range(60))))


def test_the_plans_of_both_ranks_are_equal(
    start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "0|1")
    log = tmp_path / "decisions.jsonl"
    server = start_server(
        "--policy", "bros", "--tp", "2", "--max-total-tokens", "1536", "--bros-decision-log", str(log)
    )
    responses = asyncio.run(_load(server.url))
    assert all(response.status_code == 200 for response in responses)
    server.stop()
    first = log.read_text().splitlines()
    second = log.with_name("decisions.jsonl.rank1").read_text().splitlines()
    common = min(len(first), len(second))
    assert common > 100
    assert max(len(first), len(second)) - common <= 2  # one of them was stopped a step earlier
    for mine, theirs in zip(first[:common], second[:common], strict=True):
        assert json.loads(mine) == json.loads(theirs)
    assert any(json.loads(line)["preempted"] for line in first), "the pool was never short"
