"""A mock server in a thread, a small corpus, and the command line in this process."""

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bros_sglang.cli.batch import app
from bros_sglang.mock_server import MockServer, MockSettings


class MockThread:
    """A MockServer with an event loop of its own."""

    def __init__(self, settings: MockSettings) -> None:
        self.server = MockServer(settings)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()
        gc.collect()  # closes a connection accepted at the last moment: nobody would answer on it

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with self.server:
            self._ready.set()
            await self._stop.wait()

    def start(self) -> "MockThread":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def stop(self) -> None:
        if self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.server.counts)


@pytest.fixture
def mock_server() -> Iterator[Callable[..., MockThread]]:
    """Start mock servers: `mock_server(faults=FaultPlan(...), bros=True)`."""
    started: list[MockThread] = []

    def start(**settings: Any) -> MockThread:
        started.append(MockThread(MockSettings(**settings)).start())
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def batch() -> Callable[..., Result]:
    """Run `bros batch …` in this process."""

    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)

    return run
