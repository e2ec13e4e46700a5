"""Classes and targets as OpenAI clients and gateways send them, against a live server."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import sglang as sgl

from bros_sglang import lang
from bros_sglang.evals.live.server_process import ServerProcess
from tests.conftest import StartServer

pytestmark = pytest.mark.server
MODEL = "tiny"
MESSAGES: list[Any] = [{"role": "user", "content": "the people of water"}]
BE_TAG = {"custom_params": {"bros": {"class": "be"}}}
AS_CORPUS = {"Authorization": "Bearer sk-corpus"}
RT_TAG = {"custom_params": {"bros": {"class": "rt"}}}


CORPUS_KEY = "sk-corpus"
CONFIG = f"""
[bros.models.tiny-corpus]
class = "be"
[bros.models.tiny-chat]
class = "rt"
ttft_ms = 200
[bros.keys]
{hashlib.sha256(CORPUS_KEY.encode()).hexdigest()} = "be"
"""


@pytest.fixture(scope="module")
def server(start_server: StartServer, tmp_path_factory: pytest.TempPathFactory) -> ServerProcess:
    config = tmp_path_factory.mktemp("config") / "bros.toml"
    config.write_text(CONFIG)
    flags = ("--policy", "bros", "--max-total-tokens", "2048", "--sleep-on-idle")
    return start_server(*flags, "--served-model-name", MODEL, "--bros-config", str(config))


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with httpx.Client(trust_env=False, timeout=60.0) as http:
        yield openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", http_client=http, max_retries=0)


def _finished(server: ServerProcess) -> tuple[int, int]:
    """How many requests of each class the scheduler has finished: what it took them for."""
    status = httpx.get(f"{server.url}/bros/status", timeout=60.0, trust_env=False).json()["schedulers"][0]
    return status["rt"]["requests_total"], status["be"]["requests_total"]


def _class_of(server: ServerProcess, send: Any) -> str:
    before = _finished(server)
    send()
    after = _finished(server)
    return {(1, 0): "rt", (0, 1): "be"}[after[0] - before[0], after[1] - before[1]]


@pytest.mark.parametrize(
    ("tier", "request_class", "reported"),
    [
        ("auto", "rt", "default"),
        ("default", "rt", "default"),
        ("priority", "rt", "priority"),
        ("flex", "be", "flex"),
        ("batch", "be", "batch"),
    ],
)
def test_service_tier_decides_and_is_reported(
    server: ServerProcess, client: openai.OpenAI, tier: Any, request_class: str, reported: str
) -> None:
    extra = {"service_tier": tier}

    def chat() -> None:
        answer = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=3, service_tier=tier
        )
        assert answer.service_tier == reported
        assert answer.choices[0].message.content is not None

    def chat_stream() -> None:
        chunks = list(
            client.chat.completions.create(
                model=MODEL,
                messages=MESSAGES,
                max_tokens=3,
                service_tier=tier,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert {chunk.service_tier for chunk in chunks} == {reported}
        assert chunks[-1].usage is not None

    def completion() -> None:
        answer = client.completions.create(model=MODEL, prompt="the", max_tokens=3, extra_body=extra)
        assert answer.model_extra is not None
        assert answer.model_extra["service_tier"] == reported

    def completion_stream() -> None:
        stream = client.completions.create(
            model=MODEL, prompt="the", max_tokens=3, extra_body=extra, stream=True
        )
        assert {(chunk.model_extra or {})["service_tier"] for chunk in stream} == {reported}

    def response() -> None:
        answer = client.responses.create(
            model=MODEL, input="the", max_output_tokens=3, service_tier=tier, user="somebody"
        )
        assert answer.service_tier == reported
        assert answer.status in ("completed", "incomplete")

    def response_stream() -> None:
        events = list(
            client.responses.create(
                model=MODEL, input="the", max_output_tokens=3, service_tier=tier, stream=True
            )
        )
        carried = [event.response for event in events if hasattr(event, "response")]
        assert {response.service_tier for response in carried} == {reported}
        assert carried[0].status == "in_progress"
        assert carried[-1].status in ("completed", "incomplete")

    for send in (chat, chat_stream, completion, completion_stream, response, response_stream):
        assert _class_of(server, send) == request_class


def test_nothing_asked_nothing_reported(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=3)
    assert "service_tier" not in (answer.model_extra or {})
    assert answer.service_tier is None


@pytest.mark.parametrize(
    ("headers", "extra", "request_class"),
    [
        ({}, {}, "rt"),  # the server's default class
        ({}, {"priority": -5}, "be"),
        ({}, {"priority": -5, "service_tier": "default"}, "rt"),  # tier over priority
        ({}, {"priority": 5, "service_tier": "flex"}, "be"),
        ({"x-bros-class": "be"}, {"service_tier": "priority", "priority": 5}, "be"),  # header over tier
        ({"x-bros-class": "rt"}, {"service_tier": "flex", "priority": -5}, "rt"),
        ({"x-bros-class": "rt"}, {"service_tier": "default", **BE_TAG}, "be"),  # body over all
        ({"x-bros-class": "be"}, {"service_tier": "batch", "priority": -5, **RT_TAG}, "rt"),
        ({"x-slo-ttft-ms": "100"}, {"service_tier": "flex"}, "be"),  # a target names no class
        ({}, {"model": "tiny-corpus"}, "be"),
        (AS_CORPUS, {}, "be"),
        (AS_CORPUS, {"model": "tiny-chat"}, "rt"),  # alias over key
        (AS_CORPUS, {"model": "tiny-corpus", "priority": 5}, "rt"),  # priority over both
        (AS_CORPUS, {"service_tier": "default"}, "rt"),
    ],
)
def test_order_of_precedence(
    server: ServerProcess, client: openai.OpenAI, headers: Any, extra: Any, request_class: str
) -> None:
    model = {"model": extra.get("model", MODEL)}

    def send() -> None:
        answer = client.chat.completions.create(
            messages=MESSAGES, max_tokens=3, extra_headers=headers, extra_body=extra, **model
        )
        if "service_tier" in extra:  # what was served is reported, not what was asked for
            assert (answer.service_tier in ("flex", "batch")) == (request_class == "be")

    assert _class_of(server, send) == request_class


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("headers", "extra", "param"),
    [
        ({}, {"service_tier": "gold"}, "service_tier"),
        ({}, {"service_tier": 3}, "service_tier"),
        ({"x-bros-class": "urgent"}, {}, "x-bros-class"),
        ({"x-slo-ttft-ms": "0"}, {}, "x-slo-ttft-ms"),
        ({"x-slo-tpot-ms": "nan"}, {}, "x-slo-tpot-ms"),
        ({"x-slo-tpot-ms": "1e12"}, {"service_tier": "flex"}, "x-slo-tpot-ms"),
        ({"x-slo-ttft-ms": "-1"}, {}, "x-slo-ttft-ms"),
        ({"x-bros-class": "rt"}, {"custom_params": {"bros": {"ttft_ms": -1}}}, "custom_params.bros.ttft_ms"),
        ({}, {"custom_params": {"bros": {"tpot_ms": 0}}}, "custom_params.bros.tpot_ms"),
        ({}, {"custom_params": {"bros": {"tpot_ms": 1e12}}}, "custom_params.bros.tpot_ms"),
        # One of three sources is rubbish: an error, whichever of them would have counted.
        ({"x-bros-class": "urgent"}, {"service_tier": "flex", **RT_TAG}, "x-bros-class"),
    ],
)
def test_rubbish_is_a_400_as_openai_gives_it(
    client: openai.OpenAI, headers: Any, extra: Any, param: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_tokens=3,
            stream=stream,
            extra_headers=headers,
            extra_body=extra,
        )
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=3)


def test_headers_on_generate(server: ServerProcess) -> None:
    def post(body: Any, headers: Any) -> httpx.Response:
        params = {"max_new_tokens": 3}
        return httpx.post(
            f"{server.url}/generate",
            json={"sampling_params": params, **body},
            headers=headers,
            timeout=60.0,
            trust_env=False,
        )

    assert _class_of(server, lambda: post({"text": "the"}, {"x-bros-class": "be"})) == "be"
    before = _finished(server)
    assert post({"text": ["the", "people"]}, {"x-bros-class": "be"}).status_code == 200
    each = [{"max_new_tokens": 2}, {"max_new_tokens": 3, **RT_TAG}]
    assert post({"text": ["of", "water"], "sampling_params": each}, {"x-bros-class": "be"}).status_code == 200
    after = _finished(server)
    assert (after[0] - before[0], after[1] - before[1]) == (1, 3)
    for stream in (False, True):  # with a status of its own even where SGLang streams by then
        refused = post({"text": "the", "stream": stream}, {"x-slo-ttft-ms": "-1"})
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert (error["param"], error["type"]) == ("x-slo-ttft-ms", "invalid_request_error")
    chunks = post({"text": "the", "stream": True}, {"x-bros-class": "be"}).text
    assert chunks.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
def test_rubbish_on_responses(client: openai.OpenAI, stream: bool) -> None:
    for extra in (
        {"extra_headers": {"x-bros-class": "urgent"}},
        {"extra_headers": {"x-slo-tpot-ms": "nan"}},
        {"extra_body": {"service_tier": "gold"}},
    ):
        with pytest.raises(openai.BadRequestError):
            client.responses.create(model=MODEL, input="the", max_output_tokens=3, stream=stream, **extra)
    answer = client.responses.create(model=MODEL, input="the", max_output_tokens=3)
    assert answer.service_tier is None  # nothing asked, nothing reported


def test_a_target_that_nobody_can_meet_stops_nobody(server: ServerProcess, client: openai.OpenAI) -> None:
    def ask(headers: dict[str, str]) -> None:
        client.completions.create(model=MODEL, prompt="the people", max_tokens=3, extra_headers=headers)

    assert _class_of(server, lambda: ask({"x-slo-ttft-ms": "0.001", "x-slo-tpot-ms": "0.001"})) == "rt"
    assert _class_of(server, lambda: ask({"x-bros-class": "be"})) == "be"


def test_a_server_without_an_admin_key_changes_nothing(server: ServerProcess) -> None:
    url = f"{server.url}/bros/config"
    refused = httpx.post(url, json={"ttft_ms": 300}, timeout=60.0, trust_env=False)
    assert refused.status_code == 403
    assert "--admin-api-key" in refused.json()["error"]["message"]
    settings = httpx.get(url, timeout=60.0, trust_env=False).json()["settings"]
    assert settings["ttft_ms"] == 500.0


# -- SGLang's frontend language


@sgl.function
def _answer(s: Any, question: str) -> None:
    s += "the people " + question
    s += sgl.gen("answer", max_tokens=3)


@sgl.function
def _in_parts(s: Any) -> None:
    s += "the people " + sgl.gen("first", max_tokens=3)
    with lang.best_effort():
        s += sgl.gen("second", max_tokens=3)
        with lang.realtime(ttft_ms=200):
            s += sgl.gen("third", max_tokens=3)
    s += sgl.gen("fourth", max_tokens=3)


@sgl.function
def _forked(s: Any) -> None:
    s += "the people "
    with lang.best_effort():
        forks = s.fork(2)
        for fork in forks:
            fork += sgl.gen("part", max_tokens=3)
        forks.join()
    s += forks[0]["part"]


@sgl.function
def _chosen(s: Any) -> None:
    s += "the people "
    s += sgl.gen("choice", choices=["of", "water"])


def _counts(server: ServerProcess, run: Any) -> tuple[int, int]:
    before = _finished(server)
    run()
    after = _finished(server)
    return after[0] - before[0], after[1] - before[1]


@pytest.fixture
def endpoint(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> lang.RuntimeEndpoint:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return lang.RuntimeEndpoint(server.url)


def test_a_program_runs_in_the_class_of_its_endpoint_or_of_the_block_around(
    server: ServerProcess, endpoint: lang.RuntimeEndpoint
) -> None:
    patient = lang.RuntimeEndpoint(server.url, request_class="be")
    assert _counts(server, lambda: _answer.run(question="a", backend=endpoint).text()) == (1, 0)
    assert _counts(server, lambda: _answer.run(question="b", backend=patient).text()) == (0, 1)
    with lang.best_effort():
        assert _counts(server, lambda: _answer.run(question="c", backend=endpoint).text()) == (0, 1)
    with lang.realtime():
        assert _counts(server, lambda: _answer.run(question="d", backend=patient).text()) == (1, 0)


def test_streams_and_batches_keep_the_tag_in_their_threads(
    server: ServerProcess, endpoint: lang.RuntimeEndpoint
) -> None:
    def stream() -> None:
        with lang.best_effort():
            state = _answer.run(question="e", backend=endpoint, stream=True)
        assert "".join(state.text_iter(var_name="answer")) == state["answer"]

    def batch() -> None:
        with lang.best_effort(deadline_s=60):
            states = _answer.run_batch(
                [{"question": text} for text in "fgh"], backend=endpoint, num_threads=2
            )
        assert all(state.error() is None for state in states)

    assert _counts(server, stream) == (0, 1)
    rt, be = _counts(server, batch)
    assert rt == 0
    assert be >= 3  # and a prefix computed ahead, perhaps


def test_parts_of_a_program_have_classes_of_their_own(
    server: ServerProcess, endpoint: lang.RuntimeEndpoint
) -> None:
    assert _counts(server, lambda: _in_parts.run(backend=endpoint).text()) == (3, 1)
    with lang.best_effort():
        assert _counts(server, lambda: _in_parts.run(backend=endpoint).text()) == (1, 3)


def test_fork_and_select(server: ServerProcess, endpoint: lang.RuntimeEndpoint) -> None:
    rt, be = _counts(server, lambda: _forked.run(backend=endpoint).text())
    assert rt == 0
    assert be >= 2
    with lang.best_effort():
        rt, be = _counts(server, lambda: _chosen.run(backend=endpoint).text())
    assert rt == 0
    assert be >= 2


def test_a_stock_endpoint_is_not_touched(server: ServerProcess, endpoint: lang.RuntimeEndpoint) -> None:
    stock = sgl.RuntimeEndpoint(server.url)
    with lang.best_effort():
        assert _counts(server, lambda: _answer.run(question="i", backend=stock).text()) == (1, 0)


def test_the_chat_agent_example(server: ServerProcess) -> None:
    def run() -> None:
        command = [sys.executable, "examples/chat_agent.py", "--url", server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.count("memory:") == 3

    rt, be = _counts(server, run)
    assert rt == 3
    assert be >= 3 * 2  # a note and a choice each, which takes more than one request
