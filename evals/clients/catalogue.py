"""Which clients, how each is installed, and what each is told to send.

A client is an entry of `CLIENTS`: a name, what to install into a virtual environment of its own (None: it is
in this one), whether that environment also sees this one's packages, and a function that returns its runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Target(NamedTuple):
    """What a run needs to know."""

    url: str  # of the server, without /v1
    model: str  # as the server calls it
    tokenizer: Path
    scratch: Path  # an empty folder
    python: Path  # of the client's environment


class ClientRun(NamedTuple):
    """One command, and the requests of each class that the server must then have served."""

    how: str  # by which means the class is set
    argv: list[str]
    rt: int = 0
    be: int = 0
    env: tuple[tuple[str, str], ...] = ()


class Client(NamedTuple):
    """One client."""

    name: str
    package: str  # whose version is recorded
    requirement: str | None
    runs: Callable[[Target], list[ClientRun]]
    sees_ours: bool = False


def _openai(target: Target) -> list[ClientRun]:
    argv = [str(target.python), "-m", "bros_sglang.evals.clients.openai_chat", target.url, target.model]
    return [ClientRun("service_tier, extra_body and extra_headers; streaming and not", argv, rt=6, be=6)]


def _bench_serving(target: Target) -> list[ClientRun]:
    rows = target.scratch / "rows.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for number in range(24):
            tag = {"class": "be"} if number % 2 else {"class": "rt", "ttft_ms": 400, "tpot_ms": 100}
            messages = [{"role": "user", "content": f"number {number} the people of water"}]
            row = {"messages": messages, "max_tokens": 16, "custom_params": {"bros": tag}}
            file.write(json.dumps(row) + "\n")
    argv = [str(target.python), "-m", "sglang.bench_serving", "--backend", "sglang-oai-chat"]
    argv += ["--base-url", target.url, "--model", target.model, "--tokenizer", str(target.tokenizer)]
    argv += ["--dataset-name", "openai", "--dataset-path", str(rows), "--num-prompts", "24"]
    argv += ["--request-rate", "8", "--warmup-requests", "0", "--disable-tqdm"]
    argv += ["--output-file", str(target.scratch / "bench.jsonl")]
    return [ClientRun("custom_params in each row of the data set", argv, rt=12, be=12)]


def _aiperf(target: Target) -> list[ClientRun]:
    argv = [str(target.python.parent / "aiperf"), "profile", "--model", target.model, "--url", target.url]
    argv += ["--endpoint-type", "chat", "--streaming", "--tokenizer", str(target.tokenizer)]
    argv += ["--request-count", "20", "--concurrency", "4", "--isl", "64", "--osl", "16", "--ui-type", "none"]
    argv += ["--random-seed", "1", "--output-artifact-dir"]
    # 4e2: it turns a header's value that looks like a number into one, and then refuses that.
    headers = ["--header", "x-bros-class:rt", "--header", "x-slo-ttft-ms:4e2"]
    # In offline mode it takes a tokenizer from the hub's cache alone, never from a folder; "0" is on to it.
    online = (("HF_HUB_OFFLINE", ""),)
    return [
        ClientRun("headers", [*argv, str(target.scratch / "rt"), *headers], rt=20, env=online),
        ClientRun(
            "service_tier, as an extra input",
            [*argv, str(target.scratch / "be"), "--extra-inputs", "service_tier:flex"],
            be=20,
            env=online,
        ),
    ]


def _guidellm(target: Target) -> list[ClientRun]:
    def argv(extras: dict[str, object], name: str) -> list[str]:
        backend = {"kind": "openai_http", "target": target.url, "model": target.model, "extras": extras}
        data = {"kind": "synthetic_text", "prompt_tokens": 64, "output_tokens": 16}
        return [
            *(str(target.python.parent / "guidellm"), "run", "--backend", json.dumps(backend)),
            *("--profile", "kind=concurrent,streams=4", "--constraint", "kind=max_requests,count=20"),
            *("--tokenizer", json.dumps({"kind": "huggingface_auto", "model": str(target.tokenizer)})),
            *("--data", json.dumps(data), "--disable-console-interactive"),
            *("--output", json.dumps({"kind": "json", "path": str(target.scratch / name)})),
        ]

    headers = {"x-bros-class": "rt", "x-slo-ttft-ms": "400"}
    body = {"custom_params": {"bros": {"class": "be"}}}
    return [
        ClientRun("headers", argv({"headers": headers}, "rt.json"), rt=20),
        ClientRun("custom_params in the body", argv({"body": body}, "be.json"), be=20),
    ]


CLIENTS = (
    Client("openai", "openai", None, _openai),
    # It is SGLang's own, and imports one package that neither SGLang's pinned CPU set nor a server needs.
    Client("bench_serving", "sglang", "datasets", _bench_serving, sees_ours=True),
    Client("aiperf", "aiperf", "aiperf==0.13.0", _aiperf),
    Client("guidellm", "guidellm", "guidellm==0.8.1", _guidellm),
)
THIS_PYTHON = Path(sys.executable)
