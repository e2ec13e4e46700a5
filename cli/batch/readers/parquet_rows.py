"""Parquet, a batch of rows at a time and only the columns that are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq

from bros_sglang.cli.batch.readers.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_BATCH_ROWS: Final = 512


def read_parquet(
    path: Path, wanted: Sequence[str] | None, on_share: Callable[[float], None] | None = None
) -> Iterator[Row]:
    """Yield the rows of a file, numbered from 1.

    `wanted` names the top-level columns to read (None: all); those that the file lacks are left out.
    `on_share` is told the share of rows read. Raises pyarrow.ArrowInvalid for a file that is not Parquet.
    """
    with pq.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
        names: list[str] = file.schema_arrow.names
        columns = names if wanted is None else [name for name in names if name in set(wanted)]
        total: int = file.metadata.num_rows
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False):
            values: list[dict[str, Any]] = batch.to_pylist()
            for value in values:
                number += 1
                yield Row(number, value)
            if on_share is not None:
                on_share(number / total)


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the top-level columns."""
    with pq.ParquetFile(path) as file:
        names: list[str] = file.schema_arrow.names
        return names
