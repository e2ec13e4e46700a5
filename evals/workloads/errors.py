"""The one error that a workload raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class WorkloadError(ValueError):
    """A workload that cannot be built; the message says what to change."""


def line_error(path: Path, line: int, reason: str) -> WorkloadError:
    """Name the file and the line (counted from 1) that could not be read."""
    return WorkloadError(f"{path}, line {line}: {reason}")
