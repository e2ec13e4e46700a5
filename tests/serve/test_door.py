"""Classes and tags over HTTP: what is accepted, what is a 400, and that the server goes on."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest

from bros_sglang.evals.live.server_process import ServerProcess
from tests.conftest import StartServer

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    """A server where `openai_harmony`, which SGLang needs for `/v1/responses` alone, cannot be imported."""
    broken = tmp_path_factory.mktemp("without-harmony")
    (broken / "openai_harmony.py").write_text("raise ImportError('not here')\n")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(broken), prepend=os.pathsep)
        return start_server("--policy", "bros", "--max-total-tokens", "2048")


def _generate(server: ServerProcess, custom_params: Any, **extra: Any) -> httpx.Response:
    body = {
        "text": "the people of water",
        "sampling_params": {"max_new_tokens": 4, "custom_params": custom_params},
    }
    return httpx.post(f"{server.url}/generate", json=body | extra, timeout=60, trust_env=False)


def _chat(server: ServerProcess, route: str, **extra: Any) -> httpx.Response:
    prompt = (
        {"messages": [{"role": "user", "content": "the people"}]}
        if "chat" in route
        else {"prompt": "the people"}
    )
    body = {"model": "tiny", "max_tokens": 4, **prompt, **extra}
    return httpx.post(f"{server.url}{route}", json=body, timeout=60, trust_env=False)


@pytest.mark.parametrize(
    "tag",
    [
        None,
        {"class": "rt"},
        {"class": "be"},
        {"class": "rt", "ttft_ms": 100, "tpot_ms": 20},
        {"deadline_s": 60},
    ],
)
@pytest.mark.parametrize("route", ["/generate", "/v1/completions", "/v1/chat/completions"])
def test_a_tag_is_accepted_on_every_route(server: ServerProcess, route: str, tag: Any) -> None:
    params = {"bros": tag}
    response = (
        _generate(server, params) if route == "/generate" else _chat(server, route, custom_params=params)
    )
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("tag", "field"),
    [
        ({"class": "best"}, "custom_params.bros.class"),
        ({"ttft_ms": -1}, "custom_params.bros.ttft_ms"),
        ({"tpot_ms": 1e12}, "custom_params.bros.tpot_ms"),
        ({"tpot_ms": "soon"}, "custom_params.bros.tpot_ms"),
        ({"klass": "rt"}, "custom_params.bros.klass"),
        ("rt", "custom_params.bros"),
    ],
)
@pytest.mark.parametrize("route", ["/generate", "/v1/completions", "/v1/chat/completions"])
def test_a_malformed_tag_is_a_400_that_names_the_field(
    server: ServerProcess, route: str, tag: Any, field: str
) -> None:
    params = {"bros": tag}
    response = (
        _generate(server, params) if route == "/generate" else _chat(server, route, custom_params=params)
    )
    assert response.status_code == 400
    assert field in response.text
    assert _generate(server, None).status_code == 200


def test_without_harmony_the_server_has_no_responses_and_all_else(server: ServerProcess) -> None:
    body = {"model": "tiny", "input": "the people", "max_output_tokens": 3}
    answer = httpx.post(f"{server.url}/v1/responses", json=body, timeout=60, trust_env=False)
    assert answer.status_code >= 400
    assert _chat(server, "/v1/chat/completions", service_tier="flex").json()["service_tier"] == "flex"


def test_stock_priority_names_a_class(server: ServerProcess) -> None:
    for priority in (5, 0, -5):
        assert _generate(server, None, priority=priority).status_code == 200


def test_other_custom_params_are_left_alone(server: ServerProcess) -> None:
    assert _generate(server, {"mine": 1}).status_code == 200


def test_aborts_and_flush_leave_nothing_behind(server: ServerProcess) -> None:
    """Abandoned requests of both classes, waiting and running, give back all that they hold."""
    for request_class in ("be", "rt"):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(
                f"{server.url}/generate",
                json={
                    "input_ids": [[7] * 500] * 6,
                    "sampling_params": {
                        "max_new_tokens": 1000,
                        "ignore_eos": True,
                        "custom_params": {"bros": {"class": request_class}},
                    },
                },
                timeout=1.0,
                trust_env=False,
            )
    httpx.post(f"{server.url}/abort_request", json={"abort_all": True}, timeout=60, trust_env=False)
    for _ in range(50):
        if httpx.post(f"{server.url}/flush_cache", timeout=60, trust_env=False).status_code == 200:
            break
    else:
        pytest.fail("the cache could not be flushed: something is still held")
    assert _generate(server, None).status_code == 200
    assert server.exit_status() is None
