"""CSV rows with their line numbers, and whole numbers out of their fields, for the CSV trace loaders."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from bros_sglang.evals.workloads.errors import WorkloadError, line_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, the named columns' fields) of a CSV file with a header; blank lines are skipped.

    Raises WorkloadError for a missing file, a header without one of the columns, and a row that is too short.
    """
    try:
        handle = path.open(newline="", encoding="utf-8-sig", errors="strict")
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror}") from error
    with handle:
        reader = csv.reader(handle)
        try:
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                raise line_error(path, 1, f"the header lacks the column {missing[0]!r} (it has {header})")
            at = [header.index(name) for name in columns]
            for row in reader:
                if not any(field.strip() for field in row):
                    continue
                if len(row) <= max(at):
                    raise line_error(
                        path, reader.line_num, f"{len(row)} fields where the header has {len(header)}"
                    )
                yield reader.line_num, [row[index].strip() for index in at]
        except (UnicodeDecodeError, csv.Error) as error:
            raise line_error(path, reader.line_num + 1, f"not CSV text: {error}") from error


def token_count(path: Path, line: int, name: str, value: object, *, at_least: int) -> int:
    """Read a whole number of tokens, given as text or as a JSON number."""
    count: int | None = None
    if type(value) is str:
        count = int(value) if value.removeprefix("-").isdecimal() else None
    elif type(value) is int or (type(value) is float and value.is_integer()):
        count = int(value)
    if count is None:
        raise line_error(path, line, f"{name} is {value!r}, not a whole number of tokens")
    if count < at_least:
        raise line_error(path, line, f"{name} is {count}, below {at_least}")
    return count
