"""Azure LLM inference traces (Azure Public Dataset, 2023 and 2024): CSV of time, prompt and output tokens.

https://github.com/Azure/AzurePublicDataset/blob/master/AzureLLMInferenceDataset2023.md
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from bros_sglang.evals.workloads.csv_rows import read_rows, token_count
from bros_sglang.evals.workloads.errors import WorkloadError, line_error
from bros_sglang.evals.workloads.trace import TracedRequest

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def _seconds(path: Path, line: int, stamp: str) -> float:
    # Seven fractional digits in 2023, a zone such as +00:00 in 2024. Times are only ever subtracted.
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        raise line_error(path, line, f"TIMESTAMP is {stamp!r}, not a date and time") from None
    whole = moment.replace(microsecond=0, tzinfo=None)
    fraction = stamp.partition(".")[2].split("+")[0].rstrip("Z")
    # The seventh digit is lost in a datetime: add the written fraction instead.
    return (whole - datetime(1970, 1, 1)).total_seconds() + (float(f"0.{fraction}") if fraction else 0.0)  # noqa: DTZ001


def load(path: Path) -> list[TracedRequest]:
    """Read a trace; arrival times count from its first request, in order."""
    rows: list[tuple[float, int, int]] = []
    for line, (stamp, prompt, output) in read_rows(path, COLUMNS):
        rows.append(
            (
                _seconds(path, line, stamp),
                token_count(path, line, "ContextTokens", prompt, at_least=1),
                # A few lines of the 2024 trace generated nothing: the prompt was still worked on.
                max(1, token_count(path, line, "GeneratedTokens", output, at_least=0)),
            )
        )
    if not rows:
        raise WorkloadError(f"{path} holds no requests")
    rows.sort(key=lambda row: row[0])
    start_s = rows[0][0]
    return [TracedRequest(at_s - start_s, prompt, output) for at_s, prompt, output in rows]
