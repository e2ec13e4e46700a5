"""The ways to start a server, and the ways in which that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import SERVER_FLAGS, StartServer

pytestmark = pytest.mark.server
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [
        (str(BIN / "sglang"), "launch_server", "--policy", "bros"),
        (str(BIN / "sglang"), "serve", "--schedule-policy", "bros"),
        (str(BIN / "bros"), "serve"),
    ],
    ids=["sglang launch_server", "sglang serve", "bros serve"],
)
def test_a_server_starts_with_bros(start_server: StartServer, command: tuple[str, ...]) -> None:
    server = start_server("--max-total-tokens", "1024", "--bros-ttft-ms", "321", command=command)
    body = {"text": "the people", "sampling_params": {"max_new_tokens": 4}}
    assert httpx.post(f"{server.url}/generate", json=body, timeout=60, trust_env=False).status_code == 200
    log = server.log.read_text(errors="replace")
    assert "targets TTFT 321 ms" in log
    assert "No accelerator found" in log
    server.stop()


def test_the_offline_engine_runs_bros(tiny_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    config = tmp_path / "bros.toml"
    config.write_text(f'decision_log = "{log}"\n')
    code = f"""
import sglang
from bros_sglang import lang
if __name__ == "__main__":
    engine = sglang.Engine(model_path={str(tiny_model)!r}, schedule_policy="bros", dtype="float32",
                           max_total_tokens=1024, log_level="info")
    params = lang.tagged({{"max_new_tokens": 4}}, request_class="be")
    outputs = engine.generate(["the people", "water of"], params)
    print("GENERATED", len(outputs), all(output["meta_info"]["completion_tokens"] == 4 for output in outputs))
    with lang.realtime(ttft_ms=300):
        stream = engine.generate("number three", lang.tagged({{"max_new_tokens": 4}}), stream=True)
    print("STREAMED", [chunk["meta_info"]["completion_tokens"] for chunk in stream][-1])
    try:
        engine.generate("the", {{"custom_params": {{"bros": {{"ttft_ms": -1}}}}}})
    except ValueError as error:
        print("REFUSED", error)
    engine.shutdown()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "BROS_CONFIG": str(config)},
    )
    assert "GENERATED 2 True" in done.stdout, done.stderr[-3000:]
    assert "STREAMED 4" in done.stdout
    assert "REFUSED custom_params.bros.ttft_ms" in done.stdout
    assert "bros-sglang" in done.stdout + done.stderr
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(record["be_admitted"] for record in records) == 2
    assert sum(len(record["rt_admitted"]) for record in records) >= 1


def test_another_policy_runs_stock_classes(start_server: StartServer) -> None:
    server = start_server("--max-total-tokens", "1024")
    log = server.log.read_text(errors="replace")
    assert "bros-sglang" not in log
    assert "Applied 1 hook(s) to sglang.srt.managers.scheduler.Scheduler " not in log
    server.stop()


def _fails(*flags: str, model: str) -> str:
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", model, *SERVER_FLAGS, *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--policy", "bros", "--bros-config", "/nowhere.toml"), "/nowhere.toml: no such file"),
        (("--policy", "bros", "--enable-priority-scheduling"), "--enable-priority-scheduling"),
    ],
)
def test_a_wrong_start_ends_with_the_reason(tiny_model: Path, flags: tuple[str, ...], reason: str) -> None:
    assert reason in _fails(*flags, model=str(tiny_model))


def test_a_model_that_does_not_exist_ends_the_start() -> None:
    output = _fails("--policy", "bros", model="/nowhere/model")
    assert "/nowhere/model" in output


def test_another_sglang_version_stops_with_both_versions(tiny_model: Path, tmp_path: Path) -> None:
    """Simulated: a seam is taken away before SGLang starts, as a release without it would."""
    (tmp_path / "sitecustomize.py").write_text(
        "import bros_sglang.seams as seams\n"
        "seams.installed_version = lambda: '0.9.9'\n"
        "seams.SEAMS += (seams.Seam('sglang.srt.managers.scheduler', 'Scheduler.gone', 'a test'),)\n"
    )
    command = [
        sys.executable,
        "-m",
        "sglang.launch_server",
        "--model-path",
        str(tiny_model),
        "--policy",
        "bros",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
    assert done.returncode != 0
    for part in ("0.9.9", "Scheduler.gone", ">=0.5.23,<0.5.24"):
        assert part in done.stdout + done.stderr
