"""Append answers and failures to their files: whole lines, one writer, durable within a second.

Lines gather in memory for a moment and go out in one write each, through a thread, so that a slow disk does
not stall the sockets. A full disk is no accident: the torn write is cut back to the last whole line, and the
run stops with everything on disk intact.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from bros_sglang.cli.batch.problem import StoppedError

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.cli.batch.run_folder import RunFolder

FLUSH_EVERY_S: Final = 0.1
SYNC_EVERY_S: Final = 1.0
_HOLD_BYTES: Final = 4 * 1024 * 1024  # beyond it, those who append wait for the disk


@dataclass(slots=True)
class _Appender:
    """One file, appended to; its size is known, so that a torn write can be undone."""

    path: Path
    handle: int = -1
    size: int = 0
    kept: int = 0  # lines written by this process
    pending: list[bytes] = field(default_factory=list)
    unsynced: bool = False

    def open(self) -> None:
        self.handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.size = os.fstat(self.handle).st_size

    def write(self, lines: list[bytes]) -> None:
        """Append lines; where the disk refuses half-way, the whole ones of what went through stay."""
        data = b"".join(lines)
        written = 0
        try:
            while written < len(data):
                written += os.write(self.handle, memoryview(data)[written:])
        except OSError:
            whole = data.rfind(b"\n", 0, written) + 1
            os.ftruncate(self.handle, self.size + whole)
            self.size += whole
            self.kept += data.count(b"\n", 0, whole)
            raise
        self.size += len(data)
        self.kept += len(lines)
        self.unsynced = True

    def sync(self) -> None:
        if self.unsynced:
            self.unsynced = False
            os.fdatasync(self.handle)

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


class Ledger:
    """Writes a run's results; an async context manager whose exit flushes and syncs what is left.

    `append` never blocks; `room()` is awaited before more work is begun. Once a write has failed, `problem`
    holds the StoppedError and nothing more is written.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.problem: StoppedError | None = None
        self.failed = asyncio.Event()
        self._output = _Appender(folder.output)
        self._errors = _Appender(folder.errors)
        self._held_bytes = 0
        self._disk = ThreadPoolExecutor(1, "ledger")
        self._pump: asyncio.Task[None] | None = None
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._synced_s = 0.0

    async def __aenter__(self) -> Self:
        """Open both files. Raises StoppedError."""
        try:
            self._output.open()
            self._errors.open()
        except OSError as error:
            raise _stopped(error) from None
        self._pump = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what is left."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        await self._flush(sync=True)
        self._disk.shutdown()
        self._output.close()
        self._errors.close()

    @property
    def kept_output(self) -> int:
        """Answers that reached the file."""
        return self._output.kept

    @property
    def kept_errors(self) -> int:
        """Failures that reached the file."""
        return self._errors.kept

    def append_output(self, line: bytes) -> None:
        """Take an answer's line (with its newline)."""
        self._append(self._output, line)

    def append_error(self, line: bytes) -> None:
        """Take a failure's line (with its newline)."""
        self._append(self._errors, line)

    async def room(self) -> None:
        """Wait while more is held than the disk takes. Raises StoppedError once the disk refused."""
        if self._held_bytes > _HOLD_BYTES:
            self._emptied.clear()
            await self._emptied.wait()
        if self.problem is not None:
            raise self.problem

    def _append(self, appender: _Appender, line: bytes) -> None:
        appender.pending.append(line)
        self._held_bytes += len(line)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self._flush(sync=time.monotonic() - self._synced_s > SYNC_EVERY_S)

    async def _flush(self, *, sync: bool) -> None:
        batches = []
        for appender in (self._output, self._errors):
            if appender.pending:
                batches.append((appender, appender.pending))
                appender.pending = []
        self._held_bytes = 0
        if self.problem is None and (batches or sync):
            work = asyncio.get_running_loop().run_in_executor(self._disk, self._write, batches, sync)
            try:
                # Shielded: a cancelled pump must not leave a write running beside the last flush.
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                if (error := work.exception()) is not None:
                    self._fail(error)
                raise
            except OSError as error:
                self._fail(error)
        self._emptied.set()

    def _write(self, batches: list[tuple[_Appender, list[bytes]]], sync: bool) -> None:
        for appender, lines in batches:
            appender.write(lines)
        if sync:
            self._output.sync()
            self._errors.sync()
            self._synced_s = time.monotonic()

    def _fail(self, error: BaseException) -> None:
        self.problem = _stopped(error)
        self.failed.set()


def _stopped(error: BaseException) -> StoppedError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return StoppedError(
        f"results cannot be written: {reason}; nothing that was written is lost: "
        "make room and run the same command again"
    )
