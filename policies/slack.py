"""Deadlines of real-time tokens, and the time to spare before them (BROS, section 4.1).

The first token is due TTFT after arrival. Token k (k ≥ 1) is due TPOT later than the one before it, counted
from the first token's actual time or from its due time: deadlines accumulate, so a request that ran ahead
has banked slack that best-effort work may borrow, and one that fell behind may catch up. All times are
seconds on one clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

DeadlineBase = Literal["actual", "due"]


@dataclass(frozen=True, slots=True)
class Slo:
    """Targets of one request, seconds."""

    ttft_s: float
    tpot_s: float


def first_token_due(arrival_s: float, slo: Slo) -> float:
    """Return when the first token is due."""
    return arrival_s + slo.ttft_s


def next_token_due(
    *, arrival_s: float, first_token_s: float | None, tokens_out: int, slo: Slo, base: DeadlineBase
) -> float:
    """Return when the next token is due.

    `tokens_out` counts the tokens produced or being produced. With base "actual" the count starts from the
    first token's real time (what a mean-TPOT target measures); with "due" from when it was due, which also
    banks an early first token.
    """
    due_s = first_token_due(arrival_s, slo)
    if tokens_out == 0:
        return due_s
    start_s = due_s if base == "due" or first_token_s is None else first_token_s
    return start_s + tokens_out * slo.tpot_s


class PendingPrefill(NamedTuple):
    """A real-time request whose first token is not out yet."""

    due_s: float
    work_s: float  # predicted time of its remaining prefill, alone


class WaitingSlack(NamedTuple):
    """What earliest-deadline-first order leaves to lend before any first token is late."""

    tightest_s: float  # +inf with nothing pending; not below 0 for requests that can still be kept
    lost: tuple[int, ...]  # positions of requests that are late even if served at once, in this order


def waiting_slack(pending: Iterable[PendingPrefill], start_s: float) -> WaitingSlack:
    """Measure slack against predicted completion, in the order given (earliest due first).

    A request completes after its own prefill and those before it. One that cannot be on time is lost: it
    takes no part in the minimum and, giving way to the others, adds no work before them.
    """
    tightest_s = float("inf")
    work_s = 0.0
    lost: list[int] = []
    for position, item in enumerate(pending):
        slack_s = item.due_s - start_s - work_s - item.work_s
        if slack_s < 0.0:
            lost.append(position)
            continue
        work_s += item.work_s
        tightest_s = min(tightest_s, slack_s)
    return WaitingSlack(tightest_s, tuple(lost))
