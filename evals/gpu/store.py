"""The records of a run on disk: one file per cell, written whole or not at all."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.cell import CellRecord

if TYPE_CHECKING:
    from pathlib import Path

CELLS, RESULTS_FILE = "cells", "results.json"


class StoreError(ValueError):
    """A record that cannot be read; the message names the file."""


class CellStore:
    """Reads and writes `OUT/cells/STAGE/CELL.json`, and all of them together as `OUT/results.json`."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def path(self, stage: str, cell: str) -> Path:
        """Return the file of a cell."""
        return self.out / CELLS / stage / f"{cell}.json"

    def get(self, stage: str, cell: str) -> CellRecord | None:
        """Return a cell's record, or None where it was never tried."""
        path = self.path(stage, cell)
        return _read(path) if path.is_file() else None

    def result(self, stage: str, cell: str) -> dict[str, Any] | None:
        """Return a finished cell's figures, or None."""
        record = self.get(stage, cell)
        return record.result if record is not None and record.status == "done" else None

    def put(self, record: CellRecord) -> None:
        """Write a record; a kill at any moment leaves the old one or the new one."""
        path = self.path(record.stage, record.cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, record.to_json())

    def all(self) -> list[CellRecord]:
        """Return every record, by stage and name."""
        return [_read(path) for path in sorted((self.out / CELLS).glob("*/*.json"))]

    def write_results(self, about: dict[str, Any]) -> Path:
        """Write `results.json`: what was run, and every record."""
        path = self.out / RESULTS_FILE
        _write(path, {"about": about, "cells": [record.to_json() for record in self.all()]})
        return path


def read_results(path: Path) -> tuple[dict[str, Any], list[CellRecord]]:
    """Read a `results.json` (or the folder of one). Raises StoreError where there is none."""
    path = path / RESULTS_FILE if path.is_dir() else path
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return dict(data["about"]), [CellRecord.from_json(record) for record in data["cells"]]
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}): finish a run first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: no results of a GPU run ({error!r})") from error


def _read(path: Path) -> CellRecord:
    try:
        return CellRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: not a cell's record ({error}); remove it to measure it again") from error


def _write(path: Path, data: dict[str, Any]) -> None:
    staged = path.with_name(f".{path.name}.new")
    with staged.open("w", encoding="utf-8") as handle:
        json.dump(data, handle, indent=1)
        handle.write("\n")
        handle.flush()
        os.fsync(handle.fileno())
    staged.replace(path)
