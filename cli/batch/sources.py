"""From what the user typed to a list of input files, each with its format and its label."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.streams import PARQUET_MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STDIN: Final = "-"


class Format(StrEnum):
    """How a file holds its records."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    TEXT = "text"


_SUFFIXES: Final = {
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSONL,
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
}
_COMPRESSED: Final = (".gz", ".zst", ".zstd")
_TEXT_SUFFIXES: Final = (".txt", ".md", ".text", ".html", ".rst", ".log")


@dataclass(frozen=True, slots=True)
class Source:
    """One input file, or all text files below one folder (a million of them need no list in memory)."""

    index: int  # in reading order
    path: Path | None  # None: standard input
    format: Format
    label: str  # names it in messages and generated ids, whatever folder the run starts in
    size_bytes: int  # 0 for standard input
    is_folder: bool = False  # of text files
    every_file: bool = False  # --format text: files that look like tables are text too

    def text_files(self) -> Iterator[Path]:
        """Yield the text files of a folder in a stable order."""
        if self.path is not None:
            for path in _walk(self.path):
                if self.every_file or _by_suffix(path) is None:
                    yield path


def expand(inputs: Sequence[str], forced: Format | None = None) -> list[Source]:
    """Resolve files, folders, globs and `-`, in the order given and sorted within each.

    Raises RefusedError where something is missing, unreadable, empty or of no known format.
    """
    if STDIN in inputs:
        if len(inputs) > 1:
            raise RefusedError("standard input (-) cannot be combined with other inputs")
        return [Source(0, None, forced or Format.JSONL, "stdin", 0)]
    items = list(dict.fromkeys(path for item in inputs for path in _matches(item)))
    base = _common_folder(items)
    found: dict[Path, Source] = {}
    for item in items:
        for source in _sources(item, forced):
            path = source.path
            if path is None or path in found:
                continue
            label = os.path.relpath(_absolute(path), base)
            found[path] = Source(
                len(found),
                path,
                source.format,
                label,
                source.size_bytes,
                is_folder=source.is_folder,
                every_file=source.every_file,
            )
    if not any(source.size_bytes for source in found.values()):
        raise RefusedError(f"{', '.join(inputs)}: empty, there is nothing to do")
    return list(found.values())


def text_label(source: Source, path: Path) -> str:
    """Return the label of one text file of a folder source."""
    inside = path.relative_to(source.path or "")
    return str(inside if source.label == "." else Path(source.label) / inside)


def _matches(item: str) -> list[Path]:
    path = Path(item)
    if path.exists():
        return [path]
    if not has_magic(item):
        raise RefusedError(f"{item}: no such file or directory")
    matches = sorted(glob(item, recursive=True))  # noqa: PTH207 (takes absolute patterns too)
    if not matches:
        raise RefusedError(f"{item}: no file matches")
    return [Path(match) for match in matches]


def _sources(item: Path, forced: Format | None) -> Iterator[Source]:
    if not item.is_dir():
        kind = forced or _by_suffix(item) or _by_content(item)
        yield Source(0, item, kind, "", _size(item))
        return
    text_bytes, any_text = 0, False
    for path in _walk(item):
        kind = forced or _by_suffix(path) or Format.TEXT
        size = _size(path)
        if kind is Format.TEXT:
            text_bytes += size
            any_text = True
        else:
            yield Source(0, path, kind, "", size)
    if any_text:
        every = forced is Format.TEXT
        yield Source(0, item, Format.TEXT, "", text_bytes, is_folder=True, every_file=every)


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}") from None
    if not os.access(path, os.R_OK):
        raise RefusedError(f"{path}: no permission to read it")
    return size


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the visible files below a folder in a stable order; one that cannot be read refuses the run."""

    def refuse(error: OSError) -> None:
        raise RefusedError(f"{error.filename}: {error.strerror}; every folder of the input must be readable")

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)


def _common_folder(items: Sequence[Path]) -> Path:
    folders = {_absolute(item) if item.is_dir() else _absolute(item).parent for item in items}
    return Path(os.path.commonpath(folders))


def _absolute(path: Path) -> Path:
    """Take `..` out, but follow no links: a link's own name is what the user knows."""
    return Path(os.path.normpath(path.absolute()))


def _by_suffix(path: Path) -> Format | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def _by_content(path: Path) -> Format:
    """Tell the format of a single file whose name does not."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}") from None
    suffix = path.suffix.lower()
    if head == PARQUET_MAGIC:
        return Format.PARQUET
    if suffix in _TEXT_SUFFIXES:
        return Format.TEXT
    if head[:1] == b"{" or suffix in _COMPRESSED or not head:
        return Format.JSONL
    raise RefusedError(f"{path}: cannot tell its format; say --format {'|'.join(Format)}")
