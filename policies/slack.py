"""Deadlines of real-time tokens, and the time to spare before them (BROS, section 4.1).

The first token is due TTFT after arrival. Token k (k ≥ 1) is due TPOT later than the one before it, counted
from the first token's actual time or from its due time: deadlines accumulate, so a request that ran ahead
has banked slack that best-effort work may borrow, and one that fell behind may catch up. All times are
seconds on one clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
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


def latest_catching_up(due_s: float, tpot_s: float, remaining_tokens: int) -> float:
    """Return how late the next token may be for a request that will catch up with its pace.

    A row that is made to wait gains on its target with every token that is made faster. Taken for sure is a
    quarter of the target per token still to come: half of what a pace of half the target gains, since a
    request may end earlier than expected.
    """
    return due_s + 0.25 * tpot_s * remaining_tokens


def waiting_slack(pending: Sequence[PendingPrefill], start_s: float, margin: float = 1.0) -> WaitingSlack:
    """Measure slack against predicted completion, in the order given (earliest due first).

    A request completes after its own prefill and those before it. Where not all can be on time, as few as
    possible are given up (Moore 1968: in due order, whenever one would be late, the one with most work so far
    goes): they are lost, take no part in the minimum and add no work before the others. Slack is kept for
    predictions that are `margin` times too short; nobody is given up for that.
    """
    kept: list[tuple[float, int]] = []  # (-work, position): a heap, most work on top
    work_s = 0.0
    lost: list[int] = []
    for position, item in enumerate(pending):
        heapq.heappush(kept, (-item.work_s, position))
        work_s += item.work_s
        if start_s + work_s > item.due_s:
            most_s, given_up = heapq.heappop(kept)
            work_s += most_s
            lost.append(given_up)
    tightest_s = float("inf")
    work_s = 0.0
    for position in sorted(position for _, position in kept):
        work_s += pending[position].work_s * margin
        tightest_s = min(tightest_s, pending[position].due_s - start_s - work_s)
    return WaitingSlack(max(tightest_s, 0.0), tuple(sorted(lost)))
