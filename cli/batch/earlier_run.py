"""What to do with a folder that already holds a run: go on, begin anew, or refuse with a clear choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.cli.batch.atomic_file import sync_folder
from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.run_record import RunRecord, read_record

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.cli.batch.fingerprint import InputFingerprint
    from bros_sglang.cli.batch.run_folder import RunFolder
    from bros_sglang.cli.batch.settings import RunSettings

_CHOICE = "go on with what is there: --continue-anyway (ids decide what is done); begin anew: --restart"


def check_earlier_run(
    folder: RunFolder, settings: RunSettings, now: InputFingerprint, *, continue_anyway: bool
) -> tuple[RunRecord | None, bool]:
    """Return the folder's record (None: a new run) and whether the input is the same as then.

    Raises RefusedError where input or settings differ and `continue_anyway` was not said.
    """
    record = read_record(folder.record)
    if record is None:
        if folder.output.exists() or folder.errors.exists():
            if not continue_anyway:
                raise RefusedError(f"{folder.path}: holds results but no run.json; {_CHOICE}")
            return None, False
        return None, True
    input_change = record.input.difference(now)
    changed = settings.changed_from(record.settings)
    if not continue_anyway:
        if input_change is not None:
            raise RefusedError(f"{folder.path}: the input is not what it was ({input_change}); {_CHOICE}")
        if changed:
            names = ", ".join(f"{name.replace('_', ' ')}" for name in changed)
            raise RefusedError(f"{folder.path}: the settings are not what they were ({names}); {_CHOICE}")
    return record, input_change is None


def set_aside(folder: RunFolder) -> Path | None:
    """Move an earlier run's files into `previous-N`, so that a new one begins; None: there were none."""
    files = [folder.output, folder.errors, folder.record, folder.parquet]
    files += sorted(folder.path.glob("errors.retried-*.jsonl"))
    present = [path for path in files if path.exists()]
    if not present:
        return None
    number = 1
    while (target := folder.path / f"previous-{number}").exists():
        number += 1
    target.mkdir()
    # The record goes last: should this be killed, what is left is still refused or still a whole run.
    for path in sorted(present, key=lambda path: path == folder.record):
        path.rename(target / path.name)
    sync_folder(folder.path)
    return target


def forget_errors(folder: RunFolder) -> int:
    """Put errors.jsonl aside as `errors.retried-N.jsonl`: its requests are not done. Returns its lines."""
    if not folder.errors.exists() or not folder.errors.stat().st_size:
        return 0
    number = 1
    while (target := folder.path / f"errors.retried-{number}.jsonl").exists():
        number += 1
    with folder.errors.open("rb") as file:
        count = sum(1 for _ in file)
    folder.errors.rename(target)
    sync_folder(folder.path)
    return count
