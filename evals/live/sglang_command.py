"""The command that starts an SGLang server for a measurement, and the small CPU server of demo and tests."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from bros_sglang.evals.live.errors import LiveError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Small enough that a tiny model on one core is busy: the pool holds about 30 of the 64 requests that may run.
TINY_FLAGS = (
    "--dtype",
    "float32",
    "--max-total-tokens",
    "8192",
    "--chunked-prefill-size",
    "512",
    "--max-running-requests",
    "64",
)
# One thread computes: a second one makes a model of this size slower, and the client needs the other core.
TINY_ENV = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def sglang_command(model: Path | str, flags: Sequence[str] = ()) -> list[str]:
    """Return the command that serves a model with this Python's SGLang."""
    return [sys.executable, "-m", "sglang.launch_server", "--model-path", str(model), *flags]


def tiny_server_command(folder: Path) -> list[str]:
    """Build the tiny model in `folder` and return the command that serves it on the CPU."""
    return sglang_command(tiny_model_in(folder), TINY_FLAGS)


def tiny_model_in(folder: Path) -> Path:
    """Build the tiny model in `folder` and return its path. Raises LiveError where that fails.

    It is built by a process of its own: this one drives the load, and stays free of torch and its threads.
    """
    model = folder / "tiny-llama"
    build = [sys.executable, "-m", "bros_sglang.cli.app", "model", "tiny", str(model)]
    done = subprocess.run(  # noqa: S603 (our own command)
        build, env={**os.environ, **TINY_ENV}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise LiveError(f"the tiny model could not be built:\n{done.stderr[-2000:]}")
    return model
