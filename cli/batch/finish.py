"""After the last answer: output.jsonl in the input's order, and as a Parquet table."""

from __future__ import annotations

import sqlite3
from typing import IO, TYPE_CHECKING, Any, Final

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bros_sglang.cli.batch.atomic_file import replacing
from bros_sglang.cli.batch.id_index import id_key
from bros_sglang.cli.batch.lines import parse_output_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bros_sglang.cli.batch.id_index import IdIndex
    from bros_sglang.cli.batch.run_folder import RunFolder

_ROWS_PER_GROUP: Final = 8192
_BYTES_PER_GROUP: Final = 32 * 1024 * 1024

_SCHEMA: Final = pa.schema(
    [
        ("custom_id", pa.string()),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("model", pa.string()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("body", pa.string()),  # the whole answer as JSON: tool calls, log-probabilities, further choices
    ]
)


def put_in_order(folder: RunFolder, index: IdIndex) -> None:
    """Rewrite output.jsonl in the input's order; `index` must have met the whole input.

    Answers whose id the input no longer has go to the end. The file is replaced at once, so a kill leaves
    either order and no loss. Memory is bounded: the order is sorted by SQLite, on disk where it is large.
    """
    table = sqlite3.connect("", isolation_level=None)
    table.execute(
        "CREATE TABLE lines (place INTEGER, start INTEGER, PRIMARY KEY (place, start)) WITHOUT ROWID"
    )
    table.execute("BEGIN")
    table.executemany("INSERT INTO lines VALUES (?, ?)", _places(folder, index))
    with folder.output.open("rb") as old, replacing(folder.output) as new:
        for (start,) in table.execute("SELECT start FROM lines ORDER BY place, start"):
            old.seek(start)
            new.write(old.readline())
    table.close()


def write_parquet(folder: RunFolder) -> None:
    """Write output.parquet beside output.jsonl: one row per answer, in its order."""
    with folder.output.open("rb") as lines, replacing(folder.parquet) as file:
        _write_table(lines, file)


def _write_table(lines: IO[bytes], file: IO[bytes]) -> None:
    with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
        rows: list[dict[str, Any]] = []
        held = 0
        for line in lines:
            rows.append(_row(line))
            held += len(line)
            if len(rows) >= _ROWS_PER_GROUP or held >= _BYTES_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
                rows, held = [], 0
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))


def _places(folder: RunFolder, index: IdIndex) -> Iterator[tuple[int, int]]:
    start = 0
    with folder.output.open("rb") as file:
        for line in file:
            place = index.place_of(id_key(parse_output_line(line)[0]))
            yield (1 << 62) if place is None else place, start
            start += len(line)


def _row(line: bytes) -> dict[str, Any]:
    record = orjson.loads(line)
    body = record["response"]["body"]
    choice = body["choices"][0]
    message = choice.get("message")
    usage = body.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    return {
        "custom_id": record["custom_id"],
        "text": choice.get("text") if message is None else message.get("content"),
        "finish_reason": choice.get("finish_reason"),
        "model": body.get("model"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cached_tokens": details.get("cached_tokens"),
        "body": orjson.dumps(body).decode(),
    }
