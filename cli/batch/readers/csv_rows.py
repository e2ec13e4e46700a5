"""CSV and TSV with a header line; quoted fields may span lines."""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING

from bros_sglang.cli.batch.readers.row import Row
from bros_sglang.cli.batch.streams import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_csv(stream: IO[bytes], delimiter: str = ",") -> Iterator[Row]:
    """Yield one row per record, with the columns of the header."""
    csv.field_size_limit(MAX_LINE_BYTES)
    # surrogateescape keeps going past a byte that is no UTF-8, so that it costs one row and not the file.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, None, "invalid_csv", f"not CSV: {error}")
            continue
        if not record:
            continue
        if header is None:
            header = record
            continue
        if len(record) != len(header):
            reason = f"{len(record)} fields where the header has {len(header)}"
            yield Row(line, None, "invalid_csv", reason)
            continue
        if any(_undecodable(value) for value in record):
            yield Row(line, None, "not_utf8", "not UTF-8: save the file as UTF-8")
            continue
        yield Row(line, dict(zip(header, record, strict=True)))


def csv_columns(stream: IO[bytes], delimiter: str = ",") -> list[str]:
    """Return the header's columns; [] for an empty file."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    return next((record for record in csv.reader(text, delimiter=delimiter) if record), [])


def _undecodable(value: str) -> bool:
    return not value.isascii() and any("\udc80" <= char <= "\udcff" for char in value)
