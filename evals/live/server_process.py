"""A server as a child process: started on a free port, waited for, and killed whole whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

import httpx
import psutil

from bros_sglang.evals.live.errors import LiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 15.0
_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    # In the child, before exec: when this program is killed outright no handler of its own can run. SGLang's
    # processes end when their parent does.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


class ServerProcess:
    """Run a server command from `with` to its end; its output goes to a log file.

    `command` is completed with `--host` and `--port`; with `placeholders` it is taken as it is but for those
    and `{port}`, which are filled in. The server is up when GET /health answers 200, or, where it knows no
    such path, GET /v1/models.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        placeholders: Mapping[str, str] | None = None,
        timeout_s: float = START_TIMEOUT_S,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        if placeholders is None:
            self._command = [*command, "--host", "127.0.0.1", "--port", str(self.port)]
        else:
            self._command = [_filled(word, {**placeholders, "port": str(self.port)}) for word in command]
        self._env = {**os.environ, **(env or {})}
        self._timeout_s = timeout_s
        self._on_wait = on_wait
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("ab") as handle:
            handle.write(f"$ {' '.join(self._command)}\n".encode())
            handle.flush()
            try:
                self._process = subprocess.Popen(  # noqa: S603 (the command is the user's own)
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=handle,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    start_new_session=True,  # Ctrl-C reaches us alone: we end the server in order
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                raise LiveError(f"cannot run {self._command[0]}: {error.strerror}") from error
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_up(self) -> None:
        start = time.monotonic()
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while True:
                waited_s = time.monotonic() - start
                if (status := self.exit_status()) is not None:
                    raise LiveError(
                        f"the server ended with status {status} while it started.\n{self.log_tail()}"
                    )
                if waited_s > self._timeout_s:
                    raise LiveError(f"the server was not up after {waited_s:.0f} s.\n{self.log_tail()}")
                with contextlib.suppress(httpx.HTTPError):
                    answer = client.get(f"{self.url}/health").status_code
                    if answer == httpx.codes.NOT_FOUND:
                        answer = client.get(f"{self.url}/v1/models").status_code
                    if answer == httpx.codes.OK:
                        return
                if self._on_wait is not None:
                    self._on_wait(waited_s)
                time.sleep(0.25)

    def exit_status(self) -> int | None:
        """Return the server's exit status, or None while it runs."""
        return None if self._process is None else self._process.poll()

    def log_tail(self, lines: int = 12) -> str:
        """Return the end of the log, for an error message."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return f"The end of {self.log}:\n" + "\n".join(f"  {line[:300]}" for line in text)

    def cpu_s(self) -> float:
        """Return the CPU seconds that the server's processes have used so far."""
        total = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def _tree(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        try:
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        """End the server and every process that it started; return when they are gone. Safe to call again."""
        if self._process is None:
            return
        tree = self._tree()
        self._signal(tree, signal.SIGTERM)
        _, left = psutil.wait_procs(tree, timeout=2.0)
        # SGLang's main process waits for requests to drain on SIGTERM: there is nothing left worth
        # waiting for.
        self._signal([*left, *self._tree()], signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # any that were orphaned meanwhile
        psutil.wait_procs(left, timeout=STOP_TIMEOUT_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        self._process = None

    @staticmethod
    def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, so that every `with` ends its server in order."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
