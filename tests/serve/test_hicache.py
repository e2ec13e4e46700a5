"""Hierarchical cache on the CPU: KV that was evicted comes back from host memory, with the same output."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest

from tests.conftest import StartServer

pytestmark = pytest.mark.server


def test_evicted_kv_comes_back_from_host(start_server: StartServer) -> None:
    server = start_server(
        "--policy",
        "bros",
        "--max-total-tokens",
        "1024",
        "--enable-hierarchical-cache",
        "--hicache-ratio",
        "4",
        "--hicache-io-backend",
        "direct",
        "--hicache-mem-layout",
        "layer_first",
    )
    rng = random.Random(11)

    def generate(ids: list[int]) -> dict[str, Any]:
        body = {
            "input_ids": ids,
            "sampling_params": {"temperature": 0, "max_new_tokens": 8, "ignore_eos": True},
        }
        result: dict[str, Any] = httpx.post(
            f"{server.url}/generate", json=body, timeout=60, trust_env=False
        ).json()
        return result

    prompt = [rng.randint(8, 1000) for _ in range(400)]
    first = generate(prompt)
    generate(prompt)  # asked twice: worth a copy in host memory
    for _ in range(3):  # more than the device holds, less than the host does
        generate([rng.randint(8, 1000) for _ in range(700)])
    again = generate(prompt)
    assert again["output_ids"] == first["output_ids"]
    details = again["meta_info"]["cached_tokens_details"]
    assert details is not None, again["meta_info"]
    assert details["host"] > 0, details
    server.stop()
