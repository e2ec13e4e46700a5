"""A text file is one row: its text, its name, its path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.cli.batch.readers.row import Row
from bros_sglang.cli.batch.streams import MAX_LINE_BYTES

if TYPE_CHECKING:
    from typing import IO


def read_text(stream: IO[bytes], label: str, number: int = 1) -> Row:
    """Return the one row of a file: fields `text`, `name` (file name) and `path` (its label)."""
    data = stream.read(MAX_LINE_BYTES + 1)
    if len(data) > MAX_LINE_BYTES:
        return Row(
            number, None, "file_too_long", f"the file is longer than {MAX_LINE_BYTES >> 20} MiB", label
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Row(number, None, "not_utf8", f"not UTF-8 text (byte {error.start})", label)
    if not text.strip():
        return Row(number, None, "empty_file", "the file is empty", label)
    return Row(number, {"text": text, "name": label.rsplit("/", 1)[-1], "path": label}, label=label)
