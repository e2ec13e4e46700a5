"""The folder that a run's results go to: claimed before the run, so that nothing is overwritten silently."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from bros_sglang._version import __version__

if TYPE_CHECKING:
    from pathlib import Path

RUN_FILE = "run.json"  # there from the start of a run: an interrupted one is recognised too
_OWN_SUFFIXES = (".json", ".jsonl", ".parquet", ".csv", ".png", ".html", ".log", ".txt")


class OutputFolderError(ValueError):
    """The output folder cannot be used; the message says what to change."""


def claim_folder(folder: Path, about: dict[str, Any], *, overwrite: bool = False) -> Path:
    """Create the folder and write what is about to run into its `run.json`; return the folder.

    Raises OutputFolderError where the folder holds anything, or is no folder. With `overwrite` the files
    of an earlier run in it are removed first; a folder that holds anything else is refused all the same.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputFolderError(f"{folder} is not a folder: give another --out")
    held = sorted(folder.iterdir()) if folder.exists() else []
    if held:
        if not (folder / RUN_FILE).is_file():
            raise OutputFolderError(
                f"{folder} is not empty ({held[0].name} …) and holds no earlier run: give another --out"
            )
        if not overwrite:
            raise OutputFolderError(
                f"{folder} holds another run ({_started(folder)}): "
                "give another --out, or --overwrite to replace it"
            )
        report = folder / "report"  # of `bros eval report`; it shows the run that goes
        for path in [*held, *(report.iterdir() if report.is_dir() else ())]:
            if path.is_file() and path.suffix in _OWN_SUFFIXES:
                path.unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        run = {"started": started, "bros_sglang": __version__, **about}
        (folder / RUN_FILE).write_bytes(orjson.dumps(run, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        raise OutputFolderError(f"cannot write to {folder}: {error.strerror}") from error
    return folder


def _started(folder: Path) -> str:
    try:
        return f"started {orjson.loads((folder / RUN_FILE).read_bytes())['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "unreadable run.json"
