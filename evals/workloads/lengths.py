"""Length tables: CSV of prompt and output tokens without arrival times (the processed traces of etalon)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.workloads.csv_rows import read_rows, token_count
from bros_sglang.evals.workloads.errors import WorkloadError
from bros_sglang.evals.workloads.trace import TracedRequest

if TYPE_CHECKING:
    from pathlib import Path

# Known headers, (prompt column, output column); the first is etalon's.
COLUMN_NAMES = (
    ("num_prefill_tokens", "num_decode_tokens"),
    ("prompt_tokens", "output_tokens"),
    ("input_length", "output_length"),
)


def load(path: Path, columns: tuple[str, str] = COLUMN_NAMES[0]) -> list[TracedRequest]:
    """Read a table of lengths in the file's order."""
    requests = [
        TracedRequest(
            None,
            token_count(path, line, columns[0], prompt, at_least=1),
            token_count(path, line, columns[1], output, at_least=1),
        )
        for line, (prompt, output) in read_rows(path, columns)
    ]
    if not requests:
        raise WorkloadError(f"{path} holds no requests")
    return requests
