"""`GET /bros/status` and `bros top` against a live server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from typer.testing import CliRunner

from bros_sglang.cli.top import app
from bros_sglang.evals.live.server_process import ServerProcess
from bros_sglang.status import BrosStatus
from tests.conftest import StartServer

pytestmark = pytest.mark.server
KEY = "the-key"


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> ServerProcess:
    return start_server("--policy", "bros", "--max-total-tokens", "2048", "--api-key", KEY, "--sleep-on-idle")


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> httpx.Client:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=120.0, trust_env=False)


def _status(client: httpx.Client) -> BrosStatus:
    response = client.get("/bros/status")
    assert response.status_code == 200, response.text
    return BrosStatus.model_validate_json(response.content)


def _generate(client: httpx.Client, number: int, request_class: str, tokens: int) -> None:
    body = {
        "text": f"number {number} the people of water " * 8,
        "sampling_params": {
            "max_new_tokens": tokens,
            "ignore_eos": True,
            "custom_params": {"bros": {"class": request_class}},
        },
    }
    client.post("/generate", json=body).raise_for_status()


def _books_balance(status: BrosStatus) -> None:
    (scheduler,) = status.schedulers
    held = [
        part for kv in (scheduler.rt.kv, scheduler.be.kv) for part in (kv.running_tokens, kv.cached_tokens)
    ]
    assert scheduler.kv.free_tokens + sum(held) == scheduler.kv.pool_tokens == 2048


def test_counts_follow_the_requests(client: httpx.Client) -> None:
    before = _status(client)
    seen = []
    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(_generate, client, i, "be", 60) for i in range(8)]
        jobs += [pool.submit(_generate, client, 100 + i, "rt", 20) for i in range(4)]
        while not all(job.done() for job in jobs):
            seen.append(_status(client))
        for job in jobs:
            job.result()
    after = _status(client)
    for status in (before, *seen, after):
        _books_balance(status)
    assert after.policy == "bros"
    assert after.be.requests_total - before.be.requests_total == 8
    assert after.rt.requests_total - before.rt.requests_total == 4
    assert after.be.output_tokens_total - before.be.output_tokens_total == 8 * 60
    assert after.rt.output_tokens_total - before.rt.output_tokens_total == 4 * 20
    assert after.rt.last_minute.attainment is not None
    assert after.be.last_minute.attainment is None
    assert after.rt.running == after.be.running == after.be.parked == after.rt.waiting == 0
    assert any(status.be.running + status.be.parked + status.be.waiting for status in seen)
    (scheduler,) = after.schedulers
    assert scheduler.step_time.passes > 0
    assert scheduler.step_time.mean_abs_error is not None


def test_it_needs_the_servers_key(server: ServerProcess) -> None:
    assert httpx.get(f"{server.url}/bros/status", timeout=30, trust_env=False).status_code == 401


def test_bros_top_reads_it(server: ServerProcess) -> None:
    result = CliRunner().invoke(app, [server.url, "--once", "--json", "--api-key", KEY])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["schedulers"][0]["kv"]["pool_tokens"] == 2048
    result = CliRunner().invoke(app, [server.url, "--once", "--api-key", KEY])
    assert result.exit_code == 0
    assert "KV: 2,048 tokens" in result.output
