"""`/bros/status`, `/bros/config`, `bros top` and bros's part of `/metrics` against a live server."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from bros_sglang.cli.top import app
from bros_sglang.evals.live.server_process import ServerProcess
from bros_sglang.reference import metrics
from bros_sglang.scheduler.metrics import _CLASS_COUNTERS, _GAUGES, _PASS_COUNTERS, _POOL_GAUGES
from bros_sglang.status import BrosStatus
from tests.conftest import StartServer

pytestmark = pytest.mark.server
KEY = "the-key"
ADMIN_KEY = "the-admin-key"


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> ServerProcess:
    flags = ("--policy", "bros", "--max-total-tokens", "2048", "--enable-metrics", "--sleep-on-idle")
    return start_server(*flags, "--api-key", KEY, "--admin-api-key", ADMIN_KEY)


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


def test_a_pause_does_not_make_the_next_request_old(client: httpx.Client) -> None:
    _generate(client, 1, "rt", 3)
    pause_s = 3.0
    time.sleep(pause_s)
    before = _status(client).rt
    _generate(client, 2, "rt", 3)
    after = _status(client).rt
    assert after.requests_total == before.requests_total + 1
    assert (after.last_minute.ttft_p99_s or 0.0) < max(pause_s, before.last_minute.ttft_p99_s or 0.0)


def test_counts_follow_the_requests(client: httpx.Client) -> None:
    before = _status(client)
    seen = []
    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(_generate, client, i, "be", 200) for i in range(8)]
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
    assert after.be.output_tokens_total - before.be.output_tokens_total == 8 * 200
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


def _change(client: httpx.Client, key: str, content: str) -> httpx.Response:
    return client.post("/bros/config", content=content, headers={"Authorization": f"Bearer {key}"})


def test_settings_change_with_the_admin_key_alone(client: httpx.Client) -> None:
    assert _change(client, KEY, '{"ttft_ms": 300}').status_code == 401
    assert _status(client).config.rt_targets.ttft_ms == 500.0

    changed = _change(client, ADMIN_KEY, '{"ttft_ms": 0.001, "be_floor_share": 0.25}')
    assert changed.status_code == 200, changed.text
    assert changed.json()["settings"]["ttft_ms"] == 0.001
    assert client.get("/bros/config").json() == changed.json()
    config = _status(client).config
    assert (config.rt_targets.ttft_ms, config.be_floor_share) == (0.001, 0.25)

    # The scheduler goes by it: nobody can meet that target.
    before = _attained(client)
    _generate(client, 900, "rt", 3)
    after = _attained(client)
    assert after[0] - before[0] == 1
    assert after[1] == before[1]
    assert _change(client, ADMIN_KEY, '{"ttft_ms": 500, "be_floor_share": 0.02}').status_code == 200


def _attained(client: httpx.Client) -> tuple[int, int]:
    minute = _status(client).rt.last_minute
    assert minute.attainment is not None
    return minute.finished, round(minute.attainment * minute.finished)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"ttft": 3}', "unknown key"),
        ('{"ttft_ms": -1}', "ttft_ms"),
        ('{"ttft_ms": NaN}', "ttft_ms"),
        ('{"decision_log": 1}', "cannot change"),
        ("[]", "expected an object"),
        ("no json", "not JSON"),
    ],
)
def test_a_bad_change_changes_nothing(client: httpx.Client, content: str, said: str) -> None:
    before = client.get("/bros/config").json()
    refused = _change(client, ADMIN_KEY, content)
    assert refused.status_code == 400
    assert said in refused.json()["error"]["message"]
    assert client.get("/bros/config").json() == before


# -- /metrics, which needs no key


def _samples(server: ServerProcess) -> dict[tuple[str, str | None], float]:
    text = httpx.get(f"{server.url}/metrics/", timeout=30, trust_env=False).text
    return {
        (sample.name, sample.labels.get("request_class")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("sglang:bros_") and not sample.name.endswith("_bucket")
    }


def test_requests_show_in_the_metrics_of_their_class(server: ServerProcess, client: httpx.Client) -> None:
    before = _samples(server)
    for _ in range(3):
        _generate(client, 0, "rt", 5)
    _generate(client, 0, "be", 8)
    end = time.monotonic() + 20.0
    while True:  # an idle server tells what is left to tell within a pass
        after = _samples(server)
        grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
        if grown["sglang:bros_num_finished_reqs_total", "be"] == 1 or time.monotonic() > end:
            break
        time.sleep(0.1)
    for which, requests, tokens in (("rt", 3, 15), ("be", 1, 8)):
        assert grown["sglang:bros_num_received_reqs_total", which] == requests
        assert grown["sglang:bros_num_finished_reqs_total", which] == requests
        assert grown["sglang:bros_generation_tokens_total", which] == tokens
        assert grown["sglang:bros_time_to_first_token_seconds_count", which] == requests
        assert grown["sglang:bros_queue_time_seconds_count", which] == requests
        assert grown["sglang:bros_time_per_output_token_seconds_count", which] == requests
    assert grown["sglang:bros_passes_total", None] > 0
    assert after["sglang:bros_num_running_reqs", "rt"] == 0
    held = sum(
        after[f"sglang:bros_kv_{kind}_tokens", which] for kind in ("used", "cached") for which in ("rt", "be")
    )
    assert held + after["sglang:bros_kv_free_tokens", None] == 2048


def test_every_metric_is_there(server: ServerProcess) -> None:
    names = {name for name, _ in _samples(server)}
    for name, _ in (*_CLASS_COUNTERS.values(), *_PASS_COUNTERS.values()):
        assert f"sglang:bros_{name}" in names
    assert {f"sglang:bros_{name}" for name in (*_GAUGES, *_POOL_GAUGES)} <= names
    samples = _samples(server)
    assert samples["sglang:bros_kv_pool_tokens", None] == 2048
    assert samples["sglang:bros_ttft_target_seconds", "rt"] == 0.5
    be, rt = (samples["sglang:bros_kv_frontier_tokens", which] for which in ("be", "rt"))
    assert 0 <= be <= rt <= 2048
    for which in ("rt", "be"):
        assert samples["sglang:bros_num_refused_reqs_total", which] == 0


def test_what_the_reference_describes_is_exported(server: ServerProcess) -> None:
    text = httpx.get(f"{server.url}/metrics/", timeout=30, trust_env=False).text
    exported: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("sglang:bros_"):
                exported.setdefault(sample.name, set(sample.labels) - {"le"})
    described = {series: set(metric.labels) for metric in metrics() for series in metric.series}
    assert {name: exported.get(name) for name in described} == described
