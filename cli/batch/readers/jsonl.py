"""JSON Lines: one object per line; blank lines are skipped."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import orjson

from bros_sglang.cli.batch.readers.row import Row
from bros_sglang.cli.batch.streams import MAX_LINE_BYTES, lines

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_jsonl(stream: IO[bytes]) -> Iterator[Row]:
    """Yield one row per line."""
    for number, line in enumerate(lines(stream), 1):
        if line is None:
            yield Row(number, None, "line_too_long", f"the line is longer than {MAX_LINE_BYTES >> 20} MiB")
            continue
        if number == 1 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
        if not line.strip():
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield Row(number, None, "invalid_json", f"not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield Row(number, value)
        else:
            yield Row(number, None, "invalid_json", f"expected a JSON object, found {type(value).__name__}")
