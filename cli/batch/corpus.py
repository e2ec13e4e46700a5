"""The input as one stream of requests and rejected lines, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Final

import orjson
import pyarrow as pa

from bros_sglang.cli.batch.id_index import id_key, line_key
from bros_sglang.cli.batch.problem import RefusedError, Rejected
from bros_sglang.cli.batch.readers.csv_rows import csv_columns, read_csv
from bros_sglang.cli.batch.readers.jsonl import read_jsonl
from bros_sglang.cli.batch.readers.parquet_rows import parquet_columns, read_parquet
from bros_sglang.cli.batch.readers.row import Row
from bros_sglang.cli.batch.readers.text_file import read_text
from bros_sglang.cli.batch.request import BatchRequest
from bros_sglang.cli.batch.request_builder import (
    BadRecordError,
    Builder,
    Built,
    TemplateBuilder,
    prefix_key,
    take_custom_params,
)
from bros_sglang.cli.batch.sources import Format, Source, text_label
from bros_sglang.cli.batch.streams import CORRUPT, Counted, open_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bros_sglang.cli.batch.id_index import IdIndex

_LINE_BITS: Final = 40  # 10¹² lines a file, 8·10⁶ files


def place_of(source_index: int, line: int) -> int:
    """Pack a position into one integer that sorts in reading order."""
    return source_index << _LINE_BITS | line


@dataclass(slots=True)
class Corpus:
    """Reads all sources in turn. `share` and `records` may be looked at from another thread."""

    sources: Sequence[Source]
    builder: Builder
    model_problem: Callable[[str], str | None] = lambda _: None  # why a model name cannot be asked for
    records: int = 0  # read so far, rejected ones included
    done_before: int = 0  # of them, with a result from an earlier start
    _bytes_before: int = 0
    _counted: Counted | None = None
    _total_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Add up the sizes."""
        self._total_bytes = sum(source.size_bytes for source in self.sources)

    @property
    def share(self) -> float | None:
        """Share of the input's bytes taken so far; None where the size is unknown (standard input)."""
        if not self._total_bytes:
            return None
        taken = self._bytes_before + (self._counted.taken_bytes if self._counted else 0)
        return min(1.0, taken / self._total_bytes)

    def check_columns(self) -> None:
        """Refuse, before anything is sent, tables that lack a column which the template names."""
        if not isinstance(self.builder, TemplateBuilder):
            return
        needed = [name for name in [*self.builder.fields, self.builder.id_field] if name]
        for source in self.sources[:1000]:
            columns = _columns(source)
            if columns is None:
                continue
            for name in needed:
                if name not in columns and name.split(".")[0] not in columns:
                    known = ", ".join(columns) or "none"
                    raise RefusedError(f"{source.label}: has no column {name!r}; its columns are {known}")

    def read(self, index: IdIndex) -> Iterator[BatchRequest | Rejected]:
        """Yield what has no result yet, in reading order; `index` tells and learns which ids were met."""
        for source in self.sources:
            for row in self._rows(source):
                item = self._item(source, row, index)
                self.records += 1
                if item is None:
                    self.done_before += 1
                else:
                    yield item
            self._counted = None
            self._bytes_before += source.size_bytes

    def _rows(self, source: Source) -> Iterator[Row]:
        """Yield one source's rows; where it is empty or cannot be read to its end, the last one says so."""
        last = -1
        try:
            for row in self._open(source):
                last = row.line
                yield row
        except CORRUPT as error:
            reason = f"corrupt or cut compressed data, the rest of the file cannot be read: {error}"
            yield Row(max(last, 0) + 1, None, "corrupt_file", reason)
        except (OSError, pa.ArrowException) as error:
            reason = f"cannot be read further: {error}"
            yield Row(max(last, 0) + 1, None, "unreadable_file", reason)
        else:
            if last < 0:
                yield Row(0, None, "empty_file", "the file has no records")

    def _open(self, source: Source) -> Iterator[Row]:
        if source.format is Format.PARQUET:
            if source.path is None:
                raise RefusedError("Parquet cannot be read from standard input: save it to a file first")
            yield from read_parquet(source.path, self._wanted_columns())
        elif source.is_folder:
            for number, path in enumerate(source.text_files(), 1):
                yield _read_text_file(path, text_label(source, path), number)
        else:
            stream, self._counted = open_bytes(source.path)
            with stream:
                yield from _read_stream(source, stream)

    def _wanted_columns(self) -> list[str] | None:
        if not isinstance(self.builder, TemplateBuilder):
            return None
        names = [*self.builder.fields, self.builder.id_field or "custom_id"]
        return [*names, *(name.split(".")[0] for name in names if "." in name)]

    def _item(self, source: Source, row: Row, index: IdIndex) -> BatchRequest | Rejected | None:
        if row.value is None:
            return self._reject(source, row, row.code, row.reason, None, index)
        label = row.label or f"{source.label}:{row.line}"
        try:
            built = self.builder.build(row.value, label)
            self._check_model(built)
            custom_params = take_custom_params(built)
        except BadRecordError as error:
            return self._reject(source, row, error.code, str(error), error.custom_id, index)
        place = place_of(source.index, row.line)
        seen = index.see(id_key(built.custom_id), place)
        if seen.done:
            return None
        if seen.first_place is not None:
            return self._duplicate(source, row, built.custom_id, seen.first_place, index)
        try:
            payload, key = orjson.dumps(built.body), prefix_key(built.body)
        except TypeError as error:  # a value that JSON has no word for, from Parquet
            reason = f"cannot be sent as JSON: {error}"
            return Rejected(place, label, "invalid_body", reason, built.custom_id)
        model: str = built.body["model"]
        return BatchRequest(
            place, label, built.custom_id, built.url, payload, key, model, custom_params=custom_params
        )

    def _check_model(self, built: Built) -> None:
        problem = self.model_problem(built.body["model"])
        if problem is not None:
            raise BadRecordError("model_not_found", problem, built.custom_id)

    def _duplicate(
        self, source: Source, row: Row, custom_id: str, first_place: int, index: IdIndex
    ) -> Rejected | None:
        first = self.sources[first_place >> _LINE_BITS]
        first_line = first_place & ((1 << _LINE_BITS) - 1)
        reason = f"duplicate custom_id {custom_id!r}, first at {first.label}:{first_line}"
        return self._reject(source, row, "duplicate_custom_id", reason, None, index)

    def _reject(
        self, source: Source, row: Row, code: str, reason: str, custom_id: str | None, index: IdIndex
    ) -> Rejected | None:
        """Build the rejection, or None where errors.jsonl has it already."""
        place = place_of(source.index, row.line)
        location = row.label or f"{source.label}:{row.line}"
        if custom_id is not None:
            seen = index.see(id_key(custom_id), place)
            if seen.done:
                return None
            if seen.first_place is not None:
                return self._duplicate(source, row, custom_id, seen.first_place, index)
        elif index.see(line_key(location), place).done:
            return None
        return Rejected(place, location, code, reason, custom_id)


def _read_stream(source: Source, stream: IO[bytes]) -> Iterator[Row]:
    if source.format is Format.JSONL:
        return read_jsonl(stream)
    if source.format is Format.TEXT:
        return iter([read_text(stream, source.label)])
    return read_csv(stream, "\t" if source.format is Format.TSV else ",")


def _read_text_file(path: Path, label: str, number: int) -> Row:
    """Read one of many: a file that cannot be read costs itself alone."""
    try:
        stream, _ = open_bytes(path)
        with stream:
            return read_text(stream, label, number)
    except (OSError, *CORRUPT) as error:
        return Row(number, None, "unreadable_file", f"cannot be read: {error}", label)


def _columns(source: Source) -> list[str] | None:
    """Return a table's columns; None for formats without a header and for files that cannot be read."""
    if source.path is None or not source.size_bytes:
        return None
    try:
        if source.format is Format.PARQUET:
            return parquet_columns(source.path)
        if source.format in (Format.CSV, Format.TSV):
            stream, _ = open_bytes(source.path)
            with stream:
                return csv_columns(stream, "\t" if source.format is Format.TSV else ",")
    except pa.ArrowException as error:
        raise RefusedError(f"{source.label}: not a Parquet file: {error}") from None
    except (OSError, *CORRUPT) as error:
        raise RefusedError(f"{source.label}: {error}") from None
    return None
