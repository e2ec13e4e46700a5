"""What a bare host needs so that SGLang finds this project, and what it is made of."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bros_sglang
from bros_sglang import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES = (
    "bros-sglang", "sglang", "sglang-kernel", "torch", "triton", "transformers", "flashinfer-python", "numpy",
    "xgrammar", "openai-harmony", "msgspec", "pydantic", "aiohttp", "matplotlib",
)  # fmt: skip
# Of this project: what the stages import beyond SGLang's own needs.
NEEDED = (
    "aiohttp", "httpx", "matplotlib", "numpy", "orjson", "psutil", "pyarrow", "pydantic", "rich", "scipy",
    "sglang", "tokenizers", "torch", "transformers", "typer",
)  # fmt: skip
ENTRY_POINTS = """[sglang.srt.plugins]
bros = bros_sglang.plugin:register

[sglang.srt.platforms]
bros-cpu = bros_sglang.cpu_platform:activate
"""


def source_root() -> Path:
    """Return the folder that holds the package `bros_sglang`."""
    return Path(bros_sglang.__file__).resolve().parent.parent


def installed() -> bool:
    """Tell whether SGLang's processes would find the plugin by its entry point."""
    return any(point.name == "bros" for point in metadata.entry_points(group="sglang.srt.plugins"))


def write_distribution(folder: Path) -> Path:
    """Write a distribution record with the entry points, for a source tree that nobody installed.

    The folder goes on PYTHONPATH beside the tree: SGLang finds plugins by entry points alone.
    """
    info = folder / f"bros_sglang-{__version__}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bros-sglang\nVersion: {__version__}\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def python_path(out: Path) -> str:
    """Return the PYTHONPATH of servers and measuring processes."""
    parts = [str(source_root())]
    if not installed():
        parts.append(str(write_distribution(out / "distribution")))
    inherited = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(dict.fromkeys([*parts, *filter(None, inherited.split(os.pathsep))]))


def base_env(out: Path, *, cpu: bool) -> dict[str, str]:
    """Return the environment of every process that a run starts."""
    env = {
        "PYTHONPATH": python_path(out),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    if cpu:
        env["CUDA_VISIBLE_DEVICES"] = ""
    return env


def adopt(env: Mapping[str, str]) -> None:
    """Take over what `base_env` gives to others, for processes that fork from this one."""
    os.environ.update(env)
    sys.path[:] = dict.fromkeys([*sys.path, *env["PYTHONPATH"].split(os.pathsep)])


def missing_modules() -> list[str]:
    """Return what the stages need and Python does not find."""
    return [name for name in NEEDED if find_spec(name) is None]


def versions() -> dict[str, str]:
    """Return the versions of Python, the kernel and the packages that matter; those that are absent too."""
    found = {"python": platform.python_version(), "kernel": platform.release(), "cpus": str(os.cpu_count())}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


_SMI_FIELDS = (
    "name", "driver_version", "memory.total", "memory.used", "temperature.gpu", "power.draw", "clocks.sm",
    "clocks.mem", "clocks_event_reasons.active",
)  # fmt: skip


def parse_smi(text: str) -> list[dict[str, str]]:
    """Read the CSV of `nvidia-smi --query-gpu … --format=csv,noheader`, one dict per GPU."""
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    return [dict(zip(_SMI_FIELDS, map(str.strip, row), strict=False)) for row in rows]


def nvidia_smi() -> dict[str, Any]:
    """Return what nvidia-smi says of the GPUs just now, or why it says nothing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"gpus": [], "note": "nvidia-smi is not installed"}
    query = [program, f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"gpus": [], "note": f"nvidia-smi failed: {error}"}
    if done.returncode != 0:
        return {"gpus": [], "note": f"nvidia-smi failed: {(done.stderr or done.stdout).strip()[:300]}"}
    return {"gpus": parse_smi(done.stdout)}


def command_line() -> str:
    """Return the command that is running, for the record."""
    return " ".join(["python", "-m", "bros_sglang.evals.gpu", *sys.argv[1:]])
