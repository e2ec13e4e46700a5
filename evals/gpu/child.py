"""Measurements in a process of their own: this one drives the load, and stays free of torch and the GPU."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class ChildError(RuntimeError):
    """A measuring process that failed; the message has the end of its output."""


def measured_by(
    module: str, arguments: Sequence[str], log: Path, *, env: Mapping[str, str], timeout_s: float
) -> dict[str, Any]:
    """Run `python -m module ARGUMENTS --json FILE` and return what it wrote; its output goes to `log`.

    Raises ChildError with the end of the log where it fails, writes nothing, or takes too long. It never
    outlives this call.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    out = log.with_suffix(".json")
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", module, *arguments, "--json", str(out)]
    with log.open("ab") as handle:
        handle.write(f"$ {' '.join(command)}\n".encode())
        handle.flush()
        process = subprocess.Popen(  # noqa: S603 (our own module)
            command,
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            start_new_session=True,
        )
        try:
            status = process.wait(None if timeout_s == float("inf") else timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildError(f"{module} was not done after {timeout_s:.0f} s\n{_tail(log)}") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status != 0 or not out.is_file():
        raise ChildError(f"{module} ended with status {status}\n{_tail(log)}")
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    out.unlink()
    return result


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
