"""Fixtures that every test may use: one tiny model per session, and servers to share per module."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from bros_sglang.evals.live.server_process import ServerProcess

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# A machine that is busy is no reason to fail.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

# A pool and a chunk that a handful of small requests can fill.
SERVER_FLAGS = ("--dtype", "float32", "--chunked-prefill-size", "128", "--random-seed", "0")
# SGLang adds up the KV pool's books after every pass and stops on a difference.
STRICT = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1"}

StartServer = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight Llama with a tokenizer, built on the spot."""
    from bros_sglang.evals.tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def start_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers that live as long as the module's tests."""
    logs = tmp_path_factory.mktemp("servers")
    with ExitStack() as servers:

        def start(*flags: str, command: tuple[str, ...] | None = None) -> ServerProcess:
            launch = command or (sys.executable, "-m", "sglang.launch_server")
            log = logs / f"server-{len(list(logs.iterdir()))}.log"
            return servers.enter_context(
                ServerProcess(
                    [*launch, "--model-path", str(tiny_model), *SERVER_FLAGS, *flags],
                    log,
                    env=STRICT,
                    timeout_s=180.0,
                )
            )

        yield start
