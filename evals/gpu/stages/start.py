"""Stage start: both policies start and answer, kernels compiled on first use included; or what is missing.

Stock comes first and finds out which CUDA graphs run. bros must answer with the same tokens.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx

from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.run import GRAPHS
from bros_sglang.evals.live import probe
from bros_sglang.evals.live.errors import LiveError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.gpu.run import GpuRun

ANSWER_TOKENS = 24


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell for stock and one for bros."""
    scale = run.scale
    start_s = scale.start_s + 30.0
    attempts = 1 if scale.on_cpu else len(GRAPHS)
    return [
        Cell("start", "stock", start_s * attempts, lambda: first_start(run)),
        Cell("start", "bros", start_s, lambda: start_like(run, "bros", scale.model, "stock")),
    ]


def second_model_cells(run: GpuRun) -> list[Cell]:
    """Return the same for the second model."""
    scale = run.scale
    start_s = scale.start_s + 30.0
    needs = (("start", "stock"),)
    return [
        Cell(
            "start",
            f"{scale.second_model}-stock",
            start_s,
            lambda: start_like(run, "fcfs", scale.second_model, None),
            needs,
        ),
        Cell(
            "start",
            f"{scale.second_model}-bros",
            start_s,
            lambda: start_like(run, "bros", scale.second_model, f"{scale.second_model}-stock"),
            needs,
        ),
    ]


def first_start(run: GpuRun) -> dict[str, Any]:
    """Start stock SGLang with the best graphs that run here, and have it answer."""
    scale = run.scale
    failures: dict[str, str] = {}
    for graphs, flags in GRAPHS.items():
        size = () if graphs == "none" else ("--cuda-graph-max-bs-decode", str(scale.running))
        try:
            figures = _started(run, run.arguments("fcfs", graphs=(*flags, *size)), "start-stock")
        except LiveError as error:
            run.close()
            failures[graphs] = str(error)
            if scale.on_cpu:
                break
            continue
        return {"graphs": "none" if scale.on_cpu else graphs, "failed_with": failures, **figures}
    raise LiveError("\n".join(f"graphs={graphs}: {why}" for graphs, why in failures.items()))


def start_like(run: GpuRun, policy: str, model: str, other: str | None) -> dict[str, Any]:
    """Start a server and have it answer; compare its tokens with what another cell's server answered."""
    figures = _started(run, run.arguments(policy, model=model), f"start-{model}-{policy}")
    if other is not None:
        reference = run.store.result("start", other)
        if reference is None:
            figures["same_tokens"] = None
        else:
            same = [a == b for a, b in zip(figures["tokens"], reference["tokens"], strict=True)]
            figures["same_tokens"] = sum(same)
            figures["compared"] = len(same)
    return figures


def _started(run: GpuRun, arguments: Sequence[str], log: str) -> dict[str, Any]:
    began_s = time.monotonic()
    server = run.server(run.command(arguments), log)
    up_s = time.monotonic() - began_s
    tokens = answers(server.url, run.scale.chunk_tokens)
    first_s = time.monotonic() - began_s - up_s
    began_s = time.monotonic()
    again = answers(server.url, run.scale.chunk_tokens)
    return {
        "arguments": list(arguments),
        "up_s": round(up_s, 2),
        "first_answers_s": round(first_s, 2),  # kernels compiled on first use
        "next_answers_s": round(time.monotonic() - began_s, 2),
        "pool_tokens": probe.pool_tokens(server.url),
        "repeatable": tokens == again,
        "tokens": tokens,
    }


def answers(url: str, chunk_tokens: int) -> list[list[int]]:
    """Have a server answer prompts of a token, a page, and more than a chunk, one at a time, greedily.

    Raises LiveError where an answer is missing or short.
    """
    told: list[list[int]] = []
    probe.settle(url)
    with httpx.Client(timeout=300.0, trust_env=False) as client:
        for length in (1, 16, 100, chunk_tokens + 50):
            prompt = [(7 * position + length) % 900 + 10 for position in range(length)]
            body = {
                "input_ids": prompt,
                "sampling_params": {
                    "temperature": 0.0,
                    "max_new_tokens": ANSWER_TOKENS,
                    "ignore_eos": True,
                },
            }
            try:
                reply = client.post(f"{url}/generate", json=body)
                reply.raise_for_status()
                tokens = list(reply.json()["output_ids"])
            except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
                raise LiveError(f"no answer to a prompt of {length} tokens: {error}") from error
            if len(tokens) != ANSWER_TOKENS:
                raise LiveError(f"{len(tokens)} of {ANSWER_TOKENS} tokens for a prompt of {length} tokens")
            told.append(tokens)
    return told
