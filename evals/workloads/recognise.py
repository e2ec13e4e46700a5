"""Tell a trace file's format from its first line, so that no option has to name it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import orjson

from bros_sglang.evals.workloads import azure, lengths, mooncake
from bros_sglang.evals.workloads.errors import WorkloadError

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.evals.workloads.trace import TracedRequest

FORMATS = "an Azure CSV, a Mooncake JSONL and a CSV of lengths with columns " + " or ".join(
    ",".join(names) for names in lengths.COLUMN_NAMES
)


def _first_line(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            for line in handle:
                if line.strip():
                    return line.strip().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror}") from error
    raise WorkloadError(f"{path} is empty")


def load_trace(path: Path) -> list[TracedRequest]:
    """Load a trace of any known format. Raises WorkloadError where the format is not known."""
    first = _first_line(path)
    if first.startswith(b"{"):
        try:
            known = "hash_ids" in orjson.loads(first)
        except orjson.JSONDecodeError:
            known = True  # the loader names the line and the reason
        if known:
            return mooncake.load(path)
    else:
        header = [name.strip() for name in first.decode("utf-8", "replace").split(",")]
        if all(name in header for name in azure.COLUMNS):
            return azure.load(path)
        for names in lengths.COLUMN_NAMES:
            if all(name in header for name in names):
                return partial(lengths.load, columns=names)(path)
    shown = first[:80].decode("utf-8", "replace")
    raise WorkloadError(f"{path}: unknown trace format (line 1: {shown!r}); known are {FORMATS}")
