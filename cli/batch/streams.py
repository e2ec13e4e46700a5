"""Open an input file as bytes: plain, gzip or zstd by its first bytes; long lines without long memory."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from typing import IO, TYPE_CHECKING, Final

import zstandard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GZIP_MAGIC: Final = b"\x1f\x8b"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC: Final = b"PAR1"
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
_CHUNK: Final = 1024 * 1024

CORRUPT: Final = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)


class Counted(io.RawIOBase):
    """A raw stream that knows how many (compressed) bytes were taken from it, for the progress display."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.taken_bytes = 0

    def readable(self) -> bool:
        """Return True: it reads."""
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        """Read up to `len(buffer)` bytes; 0 at the end."""
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.taken_bytes += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file below."""
        self._raw.close()
        super().close()


class _ZstdStream(io.RawIOBase):
    """Decompress zstd frames one after another; unlike zstandard's own reader, a cut file is an error."""

    def __init__(self, below: IO[bytes]) -> None:
        self._below = below
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Return True: it reads."""
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        """Read up to `len(buffer)` bytes; 0 at the end. Raises EOFError where the last frame is cut."""
        while not self._ready:
            if not self._advance():
                return 0
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _advance(self) -> bool:
        data = self._compressed or self._below.read(_CHUNK // 8)
        self._compressed = b""
        if not data:
            if self._frame is not None:
                raise EOFError("the compressed data ends in the middle of a frame")
            return False
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(self._frame.decompress(data))
        if self._frame.eof:
            self._compressed = self._frame.unused_data
            self._frame = None
        return True


def open_bytes(path: Path | None) -> tuple[IO[bytes], Counted]:
    """Open `path` (None: standard input) and return the decompressed stream and the counter below it.

    Raises OSError as open() does; the CORRUPT errors come later, from reading.
    """
    raw: IO[bytes] = sys.stdin.buffer if path is None else path.open("rb", buffering=0)
    counted = Counted(raw)
    below = io.BufferedReader(counted, _CHUNK)
    magic = below.peek(4)[:4]
    if magic[:2] == GZIP_MAGIC:
        return io.BufferedReader(gzip.GzipFile(fileobj=below, mode="rb"), _CHUNK), counted
    if magic == ZSTD_MAGIC:
        return io.BufferedReader(_ZstdStream(below), _CHUNK), counted
    return below, counted


def lines(stream: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the lines without their newline; None for one longer than MAX_LINE_BYTES, which is skipped."""
    while line := stream.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line.rstrip(b"\r\n")
            continue
        while (rest := stream.readline(_CHUNK)) and not rest.endswith(b"\n"):
            pass
        yield None
