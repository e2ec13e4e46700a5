"""Write and read result files: results.json, results.csv, requests.parquet (docs/results-schema.md)."""

from __future__ import annotations

import csv
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bros_sglang.evals.metrics.record import RequestRecord
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_SCHEMA = pa.schema(
    [
        ("policy", pa.dictionary(pa.int32(), pa.string())),
        ("round", pa.int32()),
        ("rid", pa.string()),
        ("request_class", pa.dictionary(pa.int32(), pa.string())),
        ("arrival_s", pa.float64()),
        ("prompt_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("generated_tokens", pa.int64()),
        ("first_token_s", pa.float64()),
        ("last_token_s", pa.float64()),
        ("finish_s", pa.float64()),
        ("max_gap_s", pa.float64()),
        ("on_time_tokens", pa.int64()),
        ("cached_tokens", pa.int64()),
        ("preemptions", pa.int64()),
        ("ttft_ms", pa.float64()),
        ("tpot_ms", pa.float64()),
        ("error", pa.string()),
    ]
)
_RECORD_FIELDS = tuple(field.name for field in fields(RequestRecord))


def flatten(result: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested objects into one level with dotted keys; lists are left out."""
    flat: dict[str, Any] = {}
    for key, value in result.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif not isinstance(value, list):
            flat[prefix + key] = value
    return flat


def write_results(folder: Path, results: Sequence[dict[str, Any]], name: str = "results") -> None:
    """Write NAME.json, a list with one object per policy, and NAME.csv, one row per policy."""
    text = orjson.dumps(list(results), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
    (folder / f"{name}.json").write_bytes(text + b"\n")
    rows = [flatten(result) for result in results]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (folder / f"{name}.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_requests(
    folder: Path, runs: Iterable[tuple[str, int, Sequence[RequestRecord]]], name: str = "requests"
) -> None:
    """Write NAME.parquet, one row per request, of (policy, round, records); written run by run."""
    with pq.ParquetWriter(folder / f"{name}.parquet", _SCHEMA, compression="zstd") as writer:
        for policy, round_number, records in runs:
            columns: dict[str, list[Any]] = {
                key: [getattr(record, key) for record in records] for key in _RECORD_FIELDS
            }
            columns["request_class"] = [record.request_class.value for record in records]
            columns["policy"] = [policy] * len(records)
            columns["round"] = [round_number] * len(records)
            writer.write_table(pa.table(columns, schema=_SCHEMA))


def read_requests(path: Path) -> dict[tuple[str, int], list[RequestRecord]]:
    """Read a requests.parquet back, by (policy, round) in the file's order."""
    runs: dict[tuple[str, int], list[RequestRecord]] = {}
    for row in pq.read_table(path).to_pylist():
        key = (row.pop("policy"), row.pop("round"))
        row["request_class"] = RequestClass(row["request_class"])
        runs.setdefault(key, []).append(RequestRecord(**row))
    return runs
