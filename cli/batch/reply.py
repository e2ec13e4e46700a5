"""What came back for one attempt, and what to do about it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import orjson

from bros_sglang.cli.batch.lines import Completion, parse_completion

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 60.0
LONGEST_RETRY_AFTER_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One attempt's end. `status` 0: no whole HTTP answer, `problem` says why."""

    status: int
    body: bytes = b""
    request_id: str = ""
    retry_after_s: float | None = None
    problem: str = ""
    unreachable: bool = False  # no connection could be made: nothing was sent


class Action(Enum):
    """What an attempt's end asks for."""

    KEEP = auto()  # an answer: into output.jsonl
    REFUSED = auto()  # the server will never take this request: into errors.jsonl
    BACK_OFF = auto()  # the server is busy: later, slower, without counting an attempt
    TRY_AGAIN = auto()  # it may work next time: counts an attempt
    WAIT_FOR_SERVER = auto()  # nobody is there: later, without counting


class Verdict(NamedTuple):
    """An action, with what goes into the record."""

    action: Action
    code: str = ""  # short and stable
    message: str = ""
    completion: Completion | None = None  # of KEEP


def judge(reply: Reply) -> Verdict:
    """Decide what a reply asks for: 4xx but 429 is final; 429 and 503 back off; the rest is tried again."""
    if reply.unreachable:
        return Verdict(Action.WAIT_FOR_SERVER, "unreachable", reply.problem)
    if reply.status == 0:
        return Verdict(Action.TRY_AGAIN, "connection_lost", reply.problem)
    if reply.status in (429, 503):
        return Verdict(Action.BACK_OFF, f"http_{reply.status}", error_message(reply))
    if 400 <= reply.status < 500:
        return Verdict(Action.REFUSED, f"http_{reply.status}", error_message(reply))
    if not 200 <= reply.status < 300:
        return Verdict(Action.TRY_AGAIN, f"http_{reply.status}", error_message(reply))
    try:
        return Verdict(Action.KEEP, completion=parse_completion(reply.body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return Verdict(Action.TRY_AGAIN, "invalid_response", f"the answer is not a completion: {error}")


def error_message(reply: Reply) -> str:
    """Say what an error answer says, in one line."""
    try:
        parsed: Any = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        parsed = reply.body[:200].decode("utf-8", "replace").strip()
    if isinstance(parsed, dict):
        inner = parsed.get("error", parsed)
        parsed = (
            inner.get("message") or inner.get("detail") or inner.get("object")
            if isinstance(inner, dict)
            else inner
        )
    text = " ".join(str(parsed).split()) if parsed else ""
    return f"HTTP {reply.status}: {text}" if text else f"HTTP {reply.status}"


def backoff_s(attempt: int, draw: Callable[[float, float], float] = random.uniform) -> float:
    """Return how long to wait after the `attempt`-th failure (1 and up): doubling, capped, with jitter."""
    longest = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt - 1, 20))
    return draw(longest / 2, longest)


def parse_retry_after(value: str | None, now_s: float) -> float | None:
    """Read a `Retry-After` header: seconds or an HTTP date (`now_s`: Unix time). None for rubbish."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now_s
        except ValueError:
            return None
    if seconds != seconds:  # NaN
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)
