"""A cell: the smallest piece of a run that is measured, recorded and never measured again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Status = Literal["done", "failed", "skipped", "unfinished"]


class SkipCellError(RuntimeError):
    """The cell cannot be measured here; the message says what is missing."""


@dataclass(frozen=True)
class Cell:
    """One measurement. `run` returns its figures, JSON-ready."""

    stage: str
    name: str  # a file name
    estimate_s: float
    run: Callable[[], dict[str, Any]]
    needs: tuple[tuple[str, str], ...] = ()  # (stage, cell) that must be done before
    server: str = ""  # cells behind each other with the same one share a running server
    start_s: float = 0.0  # comes on top where the cell before left no such server

    @property
    def key(self) -> str:
        """Return the name that progress and logs use."""
        return f"{self.stage}/{self.name}"


@dataclass
class CellRecord:
    """What is known of a cell that was tried."""

    stage: str
    cell: str
    status: Status
    seconds: float = 0.0
    attempts: int = 1
    reason: str = ""  # of a failed or skipped one
    started: str = ""  # UTC
    device: dict[str, Any] = field(default_factory=dict)  # nvidia-smi as the cell ended
    result: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record, JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CellRecord:
        """Read what `to_json` made; raises TypeError for anything else."""
        return cls(**data)
