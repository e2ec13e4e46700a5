"""A server where keys decide and few may wait: keys, limits, `/bros/config` and OpenTelemetry spans, live."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.util import find_spec
from typing import Any

import httpx
import openai
import pytest

from bros_sglang.evals.live.server_process import ServerProcess
from tests.conftest import StartServer

pytestmark = pytest.mark.server
SERVER_KEY, ADMIN_KEY = "the-servers-own-key", "the-admin-key"
CHAT_KEY, CORPUS_KEY = "sk-chat", "sk-corpus"
MODEL, ALIAS = "tiny", "tiny-corpus"
MESSAGES: list[Any] = [{"role": "user", "content": "the people of water"}]
TRACING = (
    all(
        find_spec(name) is not None
        for name in ("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "grpc")
    )
    if find_spec("opentelemetry")
    else False
)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


CONFIG = f"""
keys_decide = true
default_class = "be"
[keys.{_hash(CHAT_KEY)}]
class = "rt"
ttft_ms = 400
[keys]
{_hash(CORPUS_KEY)} = "be"
[models.{ALIAS}]
class = "be"
"""


class Collector:
    """A real OTLP collector: takes spans by gRPC and keeps them."""

    def __init__(self) -> None:
        import grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service

        spans = self.spans = []

        class Servicer(service.TraceServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
                for part in request.resource_spans:
                    for scope in part.scope_spans:
                        spans.extend(scope.spans)
                return messages.ExportTraceServiceResponse()

        self._server = grpc.server(ThreadPoolExecutor(2))
        service.add_TraceServiceServicer_to_server(Servicer(), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None)

    def with_attribute(self, name: str, value: str) -> list[dict[str, Any]]:
        """The attributes of all spans that have one of a value."""
        found = []
        for span in list(self.spans):
            attributes = {
                pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes
            }
            if attributes.get(name) == value:
                found.append({**attributes, "span": span.name})
        return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector | None]:
    if not TRACING:
        yield None
        return
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture(scope="module")
def server(
    start_server: StartServer, collector: Collector | None, tmp_path_factory: pytest.TempPathFactory
) -> ServerProcess:
    config = tmp_path_factory.mktemp("config") / "bros.toml"
    config.write_text(CONFIG)
    flags = ["--policy", "bros", "--bros-config", str(config), "--served-model-name", MODEL]
    flags += ["--max-total-tokens", "2048", "--max-running-requests", "2", "--sleep-on-idle"]
    flags += ["--api-key", SERVER_KEY, "--admin-api-key", ADMIN_KEY, "--enable-metrics"]
    if collector is not None:
        flags += ["--enable-trace", "--otlp-traces-endpoint", f"127.0.0.1:{collector.port}"]
    return start_server(*flags)


def _client(server: ServerProcess, key: str) -> openai.OpenAI:
    http = httpx.Client(trust_env=False, timeout=120.0)
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, http_client=http, max_retries=0)


def _get(server: ServerProcess, path: str) -> Any:
    headers = {"Authorization": f"Bearer {SERVER_KEY}"}
    return httpx.get(f"{server.url}{path}", headers=headers, timeout=60.0, trust_env=False).json()


def _scheduler(server: ServerProcess) -> Any:
    return _get(server, "/bros/status")["schedulers"][0]


def _configure(server: ServerProcess, values: Any, key: str | None = ADMIN_KEY) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.post(
        f"{server.url}/bros/config", json=values, headers=headers, timeout=60.0, trust_env=False
    )


@pytest.fixture
def limits(server: ServerProcess) -> Iterator[Callable[..., None]]:
    def set_to(**values: int | None) -> None:
        _configure(server, values).raise_for_status()

    yield set_to
    set_to(max_queued_rt=None, max_queued_be=None)


def _class_of(server: ServerProcess, send: Callable[[], Any]) -> str:
    before = _scheduler(server)
    send()
    after = _scheduler(server)
    grown = [after[which]["requests_total"] - before[which]["requests_total"] for which in ("rt", "be")]
    return {(1, 0): "rt", (0, 1): "be"}[grown[0], grown[1]]


# -- keys


@pytest.mark.parametrize(
    ("key", "model", "headers", "extra", "request_class"),
    [
        (CHAT_KEY, MODEL, {}, {}, "rt"),
        (CHAT_KEY, ALIAS, {}, {}, "be"),
        (CHAT_KEY, ALIAS, {"x-bros-class": "rt"}, {}, "rt"),
        (CHAT_KEY, MODEL, {}, {"service_tier": "flex"}, "be"),
        (CORPUS_KEY, MODEL, {}, {}, "be"),
        (CORPUS_KEY, MODEL, {"x-bros-class": "rt"}, {"service_tier": "priority", "priority": 5}, "be"),
        (CORPUS_KEY, MODEL, {}, {"custom_params": {"bros": {"class": "rt", "ttft_ms": 1}}}, "be"),
        (SERVER_KEY, MODEL, {"x-bros-class": "rt"}, {}, "be"),  # not listed: the default class
    ],
)
def test_a_client_gets_nothing_better_than_its_key_gives(
    server: ServerProcess, key: str, model: str, headers: Any, extra: Any, request_class: str
) -> None:
    client = _client(server, key)

    def send() -> None:
        answer = client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=3, extra_headers=headers, extra_body=extra
        )
        if "service_tier" in extra:
            assert (answer.service_tier == "flex") == (request_class == "be")

    assert _class_of(server, send) == request_class


def test_an_alias_on_responses(server: ServerProcess) -> None:
    client = _client(server, CHAT_KEY)
    assert (
        _class_of(server, lambda: client.responses.create(model=ALIAS, input="the", max_output_tokens=3))
        == "be"
    )
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="another", input="the", max_output_tokens=3)


def test_keys_on_generate(server: ServerProcess) -> None:
    def send(key: str) -> Callable[[], None]:
        params = {"max_new_tokens": 3, "custom_params": {"bros": {"class": "rt"}}}
        headers = {"Authorization": f"Bearer {key}"}
        return lambda: httpx.post(
            f"{server.url}/generate",
            json={"text": "the", "sampling_params": params},
            headers=headers,
            timeout=60.0,
            trust_env=False,
        ).raise_for_status()

    assert _class_of(server, send(CHAT_KEY)) == "rt"
    assert _class_of(server, send(CORPUS_KEY)) == "be"


def test_an_unknown_key_is_let_in_nowhere(server: ServerProcess) -> None:
    with pytest.raises(openai.AuthenticationError):
        _client(server, "sk-unknown").models.list()
    # A listed key is no admin key.
    headers = {"Authorization": f"Bearer {CHAT_KEY}"}
    refused = httpx.post(f"{server.url}/flush_cache", headers=headers, timeout=60.0, trust_env=False)
    assert refused.status_code == 401


def test_settings_do_not_show_the_hashes(server: ServerProcess) -> None:
    for path in ("/bros/config", "/bros/status"):
        assert _hash(CHAT_KEY) not in str(_get(server, path))
    assert _hash(CHAT_KEY)[:8] in str(_get(server, "/bros/config"))
    assert _get(server, "/bros/status")["config"]["other"]["keys"] == 2


# -- limits


def _send(client: openai.OpenAI, route: str, *, stream: bool, **extra: Any) -> Any:
    if route == "chat":
        answer: Any = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=3, stream=stream, **extra
        )
    elif route == "completions":
        answer = client.completions.create(model=MODEL, prompt="the", max_tokens=3, stream=stream, **extra)
    else:
        answer = client.responses.create(
            model=MODEL, input="the", max_output_tokens=3, stream=stream, **extra
        )
    return list(answer) if stream else answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ["chat", "completions", "responses"])
def test_a_refused_request_gets_429_and_when_to_come_back(
    server: ServerProcess, limits: Callable[..., None], route: str, stream: bool
) -> None:
    limits(max_queued_be=0)
    with pytest.raises(openai.RateLimitError) as caught:
        _send(_client(server, CORPUS_KEY), route, stream=stream)
    error = caught.value
    assert (error.status_code, error.code, error.type) == (429, "rate_limit_exceeded", "requests")
    assert "best-effort" in error.message
    assert 1 <= int(error.response.headers["retry-after"]) <= 60
    _send(_client(server, CHAT_KEY), route, stream=stream)  # real-time is let in
    limits(max_queued_be=None)
    _send(_client(server, CORPUS_KEY), route, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_generate_refuses_as_well(server: ServerProcess, limits: Callable[..., None], stream: bool) -> None:
    limits(max_queued_be=0)
    body = {"text": ["the", "people"], "stream": stream, "sampling_params": {"max_new_tokens": 3}}
    headers = {"Authorization": f"Bearer {CORPUS_KEY}"}

    def post() -> httpx.Response:
        return httpx.post(f"{server.url}/generate", json=body, headers=headers, timeout=60.0, trust_env=False)

    refused = post()
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert "retry-after" in refused.headers
    limits(max_queued_be=1)
    assert post().status_code == 400  # two prompts will never fit
    assert "send it in parts" in post().text
    limits(max_queued_be=2)
    assert post().status_code == 200


def test_what_was_let_in_is_served_and_no_more_wait_than_may(
    server: ServerProcess, limits: Callable[..., None]
) -> None:
    """A dozen best-effort clients at two seats: some are refused, nobody who was let in loses a token."""
    limits(max_queued_be=3)
    enough = threading.Event()
    refused: list[openai.RateLimitError] = []
    served: list[int] = []

    def corpus() -> None:
        client = _client(server, CORPUS_KEY)
        while not enough.is_set():
            try:
                answer = client.completions.create(
                    model=MODEL, prompt="the people", max_tokens=40, extra_body={"ignore_eos": True}
                )
            except openai.RateLimitError as error:
                refused.append(error)
                time.sleep(0.05)
            else:
                assert answer.usage is not None
                served.append(answer.usage.completion_tokens)

    end = time.monotonic() + 120.0
    deepest = 0
    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(corpus) for _ in range(12)]
        chat = _client(server, CHAT_KEY)
        try:
            while (len(served) < 12 or not refused) and time.monotonic() < end:
                deepest = max(deepest, _scheduler(server)["be"]["waiting"])
                _send(chat, "chat", stream=True)
        finally:
            enough.set()
        wait(jobs)
    for job in jobs:
        job.result()
    assert refused
    assert set(served) == {40}
    # Preempted requests wait, too: they were let in before.
    assert deepest <= 3 + 2
    text = httpx.get(f"{server.url}/metrics/", timeout=30, trust_env=False).text
    counted = [line for line in text.splitlines() if line.startswith("sglang:bros_num_refused_reqs_total")]
    assert sum(float(line.rsplit(" ", 1)[1]) for line in counted if 'request_class="be"' in line) >= len(
        refused
    )


# -- /bros/config


@pytest.mark.parametrize(
    ("values", "key", "status", "param", "said"),
    [
        ({"ttft_ms": 300}, None, 401, None, "admin key"),
        ({"ttft_ms": 300}, SERVER_KEY, 401, None, "admin key"),
        ({"ttft_ms": 300}, CHAT_KEY, 401, None, "admin key"),
        ({"ttft": 300}, ADMIN_KEY, 400, "ttft", "unknown key"),
        ({"ttft_ms": 0}, ADMIN_KEY, 400, "ttft_ms", "ttft_ms"),
        ({"ttft_ms": -1}, ADMIN_KEY, 400, "ttft_ms", "ttft_ms"),
        ({"ttft_ms": 1e12}, ADMIN_KEY, 400, "ttft_ms", "ttft_ms"),
        ({"keys": {}}, ADMIN_KEY, 400, "keys", "cannot change"),
        ({"be_floor_share": 2}, ADMIN_KEY, 400, "be_floor_share", "be_floor_share"),
        ([], ADMIN_KEY, 400, None, "expected an object"),
    ],
)
def test_a_bad_change_is_refused_as_openai_refuses(
    server: ServerProcess, values: Any, key: str | None, status: int, param: str | None, said: str
) -> None:
    before = _get(server, "/bros/config")
    refused = _configure(server, values, key)
    assert refused.status_code == status
    error = refused.json()["error"]
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert _get(server, "/bros/config") == before


def test_every_changeable_setting_changes(server: ServerProcess) -> None:
    shown = _get(server, "/bros/config")
    before = {name: shown["settings"][name] for name in shown["changeable"]}
    halved = {name: value / 2 for name, value in before.items() if isinstance(value, float)}
    changed = _configure(server, halved)
    assert changed.status_code == 200, changed.text
    assert {name: changed.json()["settings"][name] for name in halved} == halved
    _send(_client(server, CHAT_KEY), "chat", stream=False)
    _send(_client(server, CORPUS_KEY), "chat", stream=False)
    back = _configure(server, before)
    assert back.json()["settings"] == shown["settings"]


# -- spans


@pytest.mark.skipif(not TRACING, reason="needs opentelemetry-exporter-otlp-proto-grpc")
def test_spans_carry_class_and_targets(server: ServerProcess, collector: Collector) -> None:
    chat, corpus = _client(server, CHAT_KEY), _client(server, CORPUS_KEY)
    _send(chat, "chat", stream=True, extra_headers={"x-slo-ttft-ms": "1234"})
    _send(corpus, "completions", stream=False)

    def of_scheduler(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [span for span in spans if "Scheduler" in str(span.get("thread_label"))]

    def root(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [span for span in spans if "rid" in span]

    end = time.monotonic() + 60.0
    while True:
        rt = [span for span in collector.with_attribute("bros.class", "rt") if span["bros.ttft_ms"] > 1000]
        be = collector.with_attribute("bros.class", "be")
        if all((root(rt), root(be), of_scheduler(rt), of_scheduler(be))) or time.monotonic() > end:
            break
        time.sleep(0.1)
    for span in (*root(rt), *of_scheduler(rt)):
        assert span["bros.ttft_ms"] == pytest.approx(1234)
        assert span["bros.tpot_ms"] == pytest.approx(50)
    for spans in (rt, be):
        assert root(spans)
        assert of_scheduler(spans)
    assert not any("bros.ttft_ms" in span for span in be)


def test_the_server_has_outlived_all_this(server: ServerProcess) -> None:
    assert server.exit_status() is None
