"""bros's metrics in SGLang's `/metrics`."""

from __future__ import annotations

import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bros_sglang.evals.live.server_process import ServerProcess
from bros_sglang.scheduler.metrics import _CLASS_COUNTERS, _GAUGES, _PASS_COUNTERS
from tests.conftest import StartServer

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> ServerProcess:
    flags = ("--policy", "bros", "--max-total-tokens", "2048", "--enable-metrics", "--sleep-on-idle")
    return start_server(*flags)


def _samples(server: ServerProcess) -> dict[tuple[str, str | None], float]:
    text = httpx.get(f"{server.url}/metrics/", timeout=30, trust_env=False).text
    return {
        (sample.name, sample.labels.get("request_class")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("sglang:bros_") and not sample.name.endswith("_bucket")
    }


def _generate(server: ServerProcess, request_class: str, tokens: int) -> None:
    body = {
        "text": "the people of water",
        "sampling_params": {
            "max_new_tokens": tokens,
            "ignore_eos": True,
            "custom_params": {"bros": {"class": request_class}},
        },
    }
    httpx.post(f"{server.url}/generate", json=body, timeout=60, trust_env=False).raise_for_status()


def test_requests_show_in_the_metrics_of_their_class(server: ServerProcess) -> None:
    before = _samples(server)
    for _ in range(3):
        _generate(server, "rt", 5)
    _generate(server, "be", 8)
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
    assert {f"sglang:bros_{name}" for name in _GAUGES} <= names
