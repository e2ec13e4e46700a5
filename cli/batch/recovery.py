"""What an earlier start left on disk: read it, mend it, and say which ids are done.

output.jsonl and errors.jsonl are the only truth. They are appended in whole lines, but a kill can tear the
last one, and a power cut can leave a hole of zeros. A line that is no record is dropped and its request sent
again. Should one id stand twice (a copied folder, hand editing), the first answer stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from bros_sglang.cli.batch.atomic_file import replacing
from bros_sglang.cli.batch.id_index import id_key, line_key
from bros_sglang.cli.batch.lines import parse_error_line, parse_output_line
from bros_sglang.cli.batch.tally import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bros_sglang.cli.batch.id_index import IdIndex
    from bros_sglang.cli.batch.run_folder import RunFolder


@dataclass(slots=True)
class Recovered:
    """Books of the earlier starts."""

    ok: int = 0  # lines of output.jsonl
    failed: int = 0  # requests in errors.jsonl
    rejected: int = 0  # input lines in errors.jsonl that were never sent
    tokens: Tokens = field(default_factory=Tokens)
    torn: int = 0  # last lines cut off
    dropped: int = 0  # damaged or doubled lines taken out


def recover(folder: RunFolder, index: IdIndex, *, keep_rejected: bool = True) -> Recovered:
    """Read both files, cut and mend them, fill `index`. Takes about 4 s for a million lines.

    `keep_rejected=False` forgets refused input lines: where the input changed, their numbers mean nothing.
    """
    books = Recovered()

    def check_output(line: bytes) -> bool:
        custom_id, usage = parse_output_line(line)
        if not index.add_done(id_key(custom_id)):
            return False
        books.ok += 1
        books.tokens.add(usage)
        return True

    def check_error(line: bytes) -> bool:
        record = parse_error_line(line)
        never_sent = record.error.attempts == 0
        if never_sent and not keep_rejected:
            return False
        key = line_key(record.error.source or "") if record.custom_id is None else id_key(record.custom_id)
        if not index.add_done(key):
            return False
        if never_sent:
            books.rejected += 1
        else:
            books.failed += 1
        return True

    _mend(folder.output, check_output, books)
    _mend(folder.errors, check_error, books)
    return books


def _mend(path: Path, keep: Callable[[bytes], bool], books: Recovered) -> None:
    """Run `keep` over the lines of a file and rewrite it without those that it refuses or cannot read."""
    if not path.exists():
        return
    bad: list[int] = []  # offsets; few, or the file is rubbish and the list is the least of it
    offset = good_end = 0
    with path.open("rb") as file:
        for line in file:
            whole = line.endswith(b"\n")
            try:
                good = whole and keep(line)
            except msgspec.DecodeError:
                good = False
            if good:
                good_end = offset + len(line)
            elif whole:
                bad.append(offset)
            else:
                books.torn += 1
            offset += len(line)
    if not bad:
        if good_end < offset:
            with path.open("rb+") as file:
                file.truncate(good_end)
        return
    books.dropped += len(bad)
    skip = set(bad)
    with path.open("rb") as old, replacing(path) as new:
        offset = 0
        for line in old:
            if offset not in skip and line.endswith(b"\n"):
                new.write(line)
            offset += len(line)


def count_lines(path: Path) -> int:
    """Count the whole lines of a file; 0 where there is none."""
    if not path.exists():
        return 0
    count = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            count += chunk.count(b"\n")
    return count
