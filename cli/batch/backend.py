"""What the runner needs of a place that answers requests: a server, or an engine in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bros_sglang.cli.batch.reply import Reply
    from bros_sglang.status import BrosStatus


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says about itself before the first request."""

    models: tuple[str, ...]  # served names
    is_bros: bool = False  # reads the class tag
    software: str = ""  # for run.json


@dataclass(frozen=True, slots=True)
class Load:
    """A server's queue now."""

    waiting: int  # requests queued
    running: int
    status: BrosStatus | None = field(default=None, repr=False)  # of a bros server: RT's side too


class Backend(Protocol):
    """One place that answers."""

    name: str

    async def start(self) -> ServerFacts:
        """Get ready. Raises RefusedError (will not work so) or ConnectionError (nobody there now)."""
        ...

    async def send(self, url: str, body: bytes) -> Reply:
        """Make one attempt; failures are replies, not exceptions."""
        ...

    async def is_healthy(self) -> bool:
        """Tell whether it answers at all."""
        ...

    async def load(self) -> Load | None:
        """Return its queue; None where it does not tell."""
        ...

    async def close(self) -> None:
        """Let it go."""
        ...
