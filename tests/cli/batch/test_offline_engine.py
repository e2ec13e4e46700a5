"""`--model`: a real engine in the process of the run."""

import os
import subprocess
import sys

import pytest

from bros_sglang.evals.tiny_model import build_tiny_model
from tests.cli.batch.corpus_files import request_line, results, write_lines

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


def test_a_corpus_through_an_engine_of_its_own(tiny, tmp_path):
    lines = [request_line(f"chat{n}", f"document {n} about caches") for n in range(12)]
    completion = {"model": "any", "prompt": "once upon", "max_tokens": 4}
    lines.append(request_line("text", url="/v1/completions", body=completion))
    wrong = {"model": "any", "messages": [{"role": "user", "content": "x"}], "temperature": "warm"}
    lines.append(request_line("wrong", body=wrong))
    long = {"model": "any", "prompt": "word " * 6000, "max_tokens": 4}
    lines.append(request_line("long", url="/v1/completions", body=long))
    corpus = write_lines(tmp_path / "in.jsonl", lines)
    command = [sys.executable, "-m", "bros_sglang.cli.app", "batch", "run", str(corpus)]
    command += ["-o", str(tmp_path / "out"), "--model", str(tiny), "--ordered"]
    for pair in ("dtype=float32", "max_total_tokens=4096", "context_length=2048"):
        command += ["--engine-arg", pair]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)
    assert ended.returncode == 1, ended.stderr
    output, errors, record = results(tmp_path / "out")
    assert [line["custom_id"] for line in output] == [*(f"chat{n}" for n in range(12)), "text"]
    assert output[0]["response"]["body"]["object"] == "chat.completion"
    assert output[0]["response"]["body"]["model"] == str(tiny)
    assert output[-1]["response"]["body"]["object"] == "text_completion"
    assert {line["custom_id"]: line["response"]["status_code"] for line in errors} == {
        "wrong": 400,
        "long": 400,
    }
    assert 13 <= record["tokens"]["completion"] <= 12 * 8 + 4  # random weights may end an answer early
    assert "offline" in next(iter(record["servers"].values()))


def test_a_model_that_is_not_there_is_refused(tmp_path):
    corpus = write_lines(tmp_path / "in.jsonl", [request_line("a")])
    command = [sys.executable, "-m", "bros_sglang.cli.app", "batch", "run", str(corpus)]
    command += ["-o", str(tmp_path / "out"), "--model", str(tmp_path / "none")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert ended.returncode == 2
    assert "bros batch: --model" in ended.stderr
