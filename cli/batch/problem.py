"""How a batch run ends early, and how one line of its input is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EXIT_DONE: Final = 0  # every request has an answer in output.jsonl
EXIT_SOME_FAILED: Final = 1  # finished; some requests are in errors.jsonl
EXIT_REFUSED: Final = 2  # nothing was started: the message says what to change
EXIT_STOPPED: Final = 3  # disk full, server gone, …: the same command goes on
EXIT_INTERRUPTED: Final = 130  # Ctrl-C or SIGTERM: the same command goes on


class RefusedError(Exception):
    """The run cannot start as asked; nothing was sent and nothing accepted before was touched."""


class StoppedError(Exception):
    """The run had to stop; what is on disk stays, and the same command goes on from there."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """One input line that cannot be sent."""

    place: int  # position in the input, see `corpus.place_of`
    source: str  # "file:line", for people
    code: str  # short and stable, for programs
    reason: str  # what is wrong and what to change
    custom_id: str | None = None  # None where it has none, or one that an earlier line already has

    @property
    def message(self) -> str:
        """The clear line: `file:line: reason`."""
        return f"{self.source}: {self.reason}"
