"""The result folder: what is in it, and the lock that lets one run at a time write there."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bros_sglang.cli.batch.problem import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT: Final = "output.jsonl"
ERRORS: Final = "errors.jsonl"
RECORD: Final = "run.json"
PARQUET: Final = "output.parquet"
_LOCK: Final = ".lock"


@dataclass(slots=True)
class RunFolder:
    """Paths of a run, and its lock."""

    path: Path
    _lock: int | None = field(default=None, repr=False)

    @property
    def output(self) -> Path:
        """Answers."""
        return self.path / OUTPUT

    @property
    def errors(self) -> Path:
        """Failures and rejected lines."""
        return self.path / ERRORS

    @property
    def record(self) -> Path:
        """Settings, counts and times."""
        return self.path / RECORD

    @property
    def parquet(self) -> Path:
        """Answers as a table."""
        return self.path / PARQUET

    def lock(self, *, create: bool = True) -> None:
        """Take the folder for this process until it ends, however it ends. Raises RefusedError."""
        if self._lock is not None:
            return
        try:
            if create:
                self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RefusedError(f"{self.path}: {error.strerror}; choose another folder with -o") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 200, 0).decode("utf-8", "replace").strip()
            os.close(self._lock)
            self._lock = None
            raise RefusedError(
                f"{self.path}: another run is writing here ({holder or 'unknown process'}); "
                "wait for it, or choose another folder with -o"
            ) from None
        os.ftruncate(self._lock, 0)
        with suppress(OSError):  # the text only helps people; a full disk must not refuse a run
            os.pwrite(self._lock, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def is_locked(self) -> bool:
        """Tell whether a run is writing here now."""
        try:
            handle = os.open(self.path / _LOCK, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def close(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
