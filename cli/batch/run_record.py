"""run.json: what was run on what, by which versions, and what came of it."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ValidationError

from bros_sglang._version import __version__
from bros_sglang.cli.batch.atomic_file import replacing
from bros_sglang.cli.batch.fingerprint import InputFingerprint
from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.settings import RunSettings

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.cli.batch.tally import Tally

State = Literal["running", "finished", "interrupted", "stopped"]


class Counts(BaseModel):
    """Lines of the result files; `total` is known once the input was read to its end."""

    total: int | None = None
    ok: int = 0
    failed: int = 0
    rejected: int = 0  # input lines that were never sent
    no_longer_in_input: int = 0  # results whose id the input does not have any more


class TokenTotals(BaseModel):
    """Sums of `usage` over output.jsonl."""

    prompt: int = 0
    completion: int = 0
    cached: int | None = None  # None: the server does not say


class PrefixGrouping(BaseModel):
    """Shares of prompt bytes that repeat the beginning of the request before (sampled)."""

    in_input_order: float = 0.0
    as_sent: float = 0.0


class Session(BaseModel):
    """One start of the run. A session whose `ended` is None was killed."""

    started: str
    ended: str | None = None
    state: State = "running"
    reason: str | None = None
    finished: int = 0  # lines written by it
    seconds: float = 0.0
    requests_per_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens_per_s: float = 0.0  # prompt and completion
    retries: dict[str, int] = {}
    client_cpu_s: float = 0.0
    client_peak_mib: float = 0.0
    prefix_grouping: PrefixGrouping | None = None


class RunRecord(BaseModel):
    """The whole of run.json."""

    format_version: Literal[1] = 1
    state: State = "running"
    reason: str | None = None
    settings: RunSettings
    input: InputFingerprint
    versions: dict[str, str] = {}
    servers: dict[str, str] = {}  # endpoint → what it says it is
    counts: Counts = Counts()
    tokens: TokenTotals = TokenTotals()
    first_started: str
    deadline_at: str | None = None  # end of the completion window
    sessions: list[Session] = []

    def write(self, path: Path) -> None:
        """Write it whole or not at all. Raises OSError."""
        with replacing(path) as file:
            file.write(self.model_dump_json(indent=2).encode() + b"\n")


def read_record(path: Path) -> RunRecord | None:
    """Return the record of a folder; None where there is none. Raises RefusedError for rubbish."""
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RefusedError(
            f"{path}: not the record of a run ({where}: {first['msg']}); --restart begins anew"
        ) from None


def versions() -> dict[str, str]:
    """Return what this process runs."""
    found = {"bros-sglang": __version__, "python": platform.python_version()}
    for name in ("sglang", "aiohttp"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def timestamp(unix_s: float | None = None) -> str:
    """Return a time in ISO format, UTC, to the second."""
    return datetime.fromtimestamp(time.time() if unix_s is None else unix_s, UTC).isoformat(
        timespec="seconds"
    )


def parse_timestamp(text: str) -> float:
    """Return the Unix time of `timestamp()`'s text."""
    return datetime.fromisoformat(text).timestamp()


def update_session(session: Session, tally: Tally, seconds: float) -> None:
    """Bring the current session's figures up to date."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    tokens = tally.session_tokens
    session.finished = tally.session_finished
    session.seconds = round(seconds, 3)
    session.prompt_tokens, session.completion_tokens = tokens.prompt, tokens.completion
    if seconds > 0:
        session.requests_per_s = round(tally.session_finished / seconds, 2)
        session.tokens_per_s = round((tokens.prompt + tokens.completion) / seconds, 2)
    session.retries = dict(tally.retries)
    session.client_cpu_s = round(usage.ru_utime + usage.ru_stime, 2)
    session.client_peak_mib = round(usage.ru_maxrss / 1024, 1)
