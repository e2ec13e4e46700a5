"""Several real servers: two endpoints, and SGLang's own router in front of both."""

import contextlib
import os
import socket
import subprocess
import sys
import time

import httpx
import pytest

from bros_sglang.evals.tiny_model import build_tiny_model
from tests.cli.batch.corpus_files import request_line, results, write_lines

pytestmark = [pytest.mark.server, pytest.mark.slow]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def program(*arguments, url, ready):
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(1200):
            assert process.poll() is None, f"{arguments[0]} ended"
            with contextlib.suppress(httpx.HTTPError):
                if ready(httpx.get(url, timeout=5)):
                    break
            time.sleep(0.25)
        else:
            raise AssertionError(f"{arguments[0]} did not start")
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def servers(model):
    with contextlib.ExitStack() as stack:
        urls = []
        for _ in range(2):
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            command = ["sglang.launch_server", "--model-path", model, "--served-model-name", "tiny"]
            command += ["--dtype", "float32", "--max-total-tokens", 4096, "--port", port]
            command += ["--max-running-requests", 32, "--enable-cache-report"]
            stack.enter_context(
                program(
                    *command, url=f"{url}/health_generate", ready=lambda answer: answer.status_code == 200
                )
            )
            urls.append(url)
        yield urls


@pytest.fixture
def corpus(tmp_path):
    lines = [request_line(f"r{n}", f"document {n} about caches") for n in range(120)]
    for line in lines:
        line["body"]["model"] = "tiny"
    return write_lines(tmp_path / "in.jsonl", lines)


def finished(url):
    text = httpx.get(f"{url}/v1/loads?include=core").json()["loads"][0]
    return text["total_prefill_uncached_tokens"]


def test_two_endpoints(servers, corpus, batch, tmp_path):
    before = [finished(url) for url in servers]
    endpoints = [part for url in servers for part in ("--endpoint", url)]
    done = batch("run", corpus, "-o", tmp_path / "out", *endpoints)
    assert done.exit_code == 0, done.output
    output, _, record = results(tmp_path / "out")
    assert sorted(line["custom_id"] for line in output) == sorted(f"r{n}" for n in range(120))
    assert 120 <= record["tokens"]["completion"] <= 120 * 8  # random weights may end an answer early
    assert all(finished(url) > start for url, start in zip(servers, before, strict=True))


def test_behind_sglangs_router(servers, corpus, batch, tmp_path):
    pytest.importorskip("sglang_router")
    before = [finished(url) for url in servers]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["sglang_router.launch_router", "--worker-urls", *servers, "--port", port]
    command += ["--prometheus-port", free_port(), "--policy", "round_robin"]
    ready = lambda answer: answer.status_code == 200 and b"tiny" in answer.content  # noqa: E731
    with program(*command, url=f"{url}/v1/models", ready=ready):
        done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", url, "--tag", "always")
    assert done.exit_code == 0, done.output
    output, errors, _ = results(tmp_path / "out")
    assert len({line["custom_id"] for line in output}) == 120
    assert errors == []
    assert all(finished(url) > start for url, start in zip(servers, before, strict=True))
