"""Which ids are done and which were seen, in bounded memory for any number of them.

A private SQLite table (no name, so it spills to a temporary file beyond its cache and is gone with the
process): 1,000,000 ids take the 32 MB cache at most and about 4 µs each. The truth is in the output files;
this is rebuilt from them at every start.
"""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_CACHE_KIB: Final = 32 * 1024
_LONGEST_KEY: Final = 48  # bytes stored as they are, so that sequential ids stay neighbours
_DONE: Final = -1  # place of an id that has a result and was not met in the input yet


class Seen(NamedTuple):
    """What is known of an id met in the input."""

    done: bool  # it has a result already
    first_place: int | None  # set: an earlier record of the input has the same id


class IdIndex:
    """Ids by key; not safe for two threads at once, but may be handed from one to the next."""

    def __init__(self) -> None:
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.execute("PRAGMA journal_mode=OFF")
        self._table.execute("PRAGMA synchronous=OFF")
        self._table.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._table.execute("CREATE TABLE ids (key BLOB PRIMARY KEY, place INTEGER NOT NULL) WITHOUT ROWID")
        self._table.execute("BEGIN")

    def add_done(self, key: bytes) -> bool:
        """Note a result found on disk; False where this id already has one."""
        return self._table.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (key, _DONE)).rowcount == 1

    def see(self, key: bytes, place: int) -> Seen:
        """Note a record of the input at `place` (0 and up)."""
        row = self._table.execute("SELECT place FROM ids WHERE key = ?", (key,)).fetchone()
        if row is None:
            self._table.execute("INSERT INTO ids VALUES (?, ?)", (key, place))
            return Seen(done=False, first_place=None)
        if row[0] == _DONE:
            self._table.execute("UPDATE ids SET place = ? WHERE key = ?", (place, key))
            return Seen(done=True, first_place=None)
        return Seen(done=False, first_place=row[0])

    def place_of(self, key: bytes) -> int | None:
        """Return where the input has this id; None where it was not met (there)."""
        row = self._table.execute("SELECT place FROM ids WHERE key = ?", (key,)).fetchone()
        return None if row is None or row[0] == _DONE else int(row[0])

    def unmet(self) -> int:
        """Count the results whose id the input no longer has; meaningful once all of it was read."""
        row = self._table.execute("SELECT count(*) FROM ids WHERE place = ?", (_DONE,)).fetchone()
        return int(row[0])

    def keys(self) -> Iterator[bytes]:
        """Yield all keys (for checks)."""
        for row in self._table.execute("SELECT key FROM ids"):
            yield bytes(row[0])

    def close(self) -> None:
        """Drop the table."""
        self._table.close()


def id_key(custom_id: str) -> bytes:
    """Return the key of a custom_id."""
    raw = custom_id.encode("utf-8", "surrogatepass")
    # 0xff and 0xfe begin no UTF-8 text: digests and line keys can never meet an id.
    return raw if len(raw) <= _LONGEST_KEY else b"\xff" + blake2b(raw, digest_size=24).digest()


def line_key(source: str) -> bytes:
    """Return the key of an input line that has no id of its own (`source` is "file:line")."""
    return b"\xfe" + blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).digest()
