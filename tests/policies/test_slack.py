from __future__ import annotations

import math
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from bros_sglang.policies.slack import (
    PendingPrefill,
    Slo,
    first_token_due,
    latest_catching_up,
    next_token_due,
    waiting_slack,
)

SLO = Slo(ttft_s=0.5, tpot_s=0.05)


def _due(tokens_out: int, first: float | None, base: str = "actual") -> float:
    return next_token_due(arrival_s=10.0, first_token_s=first, tokens_out=tokens_out, slo=SLO, base=base)  # type: ignore[arg-type]


def test_deadlines_accumulate_from_the_first_token() -> None:
    assert first_token_due(10.0, SLO) == 10.5
    assert _due(0, None) == 10.5
    assert math.isclose(_due(3, 10.2), 10.35)
    assert math.isclose(_due(3, 10.2, "due"), 10.65)  # an early first token is banked


def test_slack_is_what_the_tightest_request_can_spare_after_those_before_it() -> None:
    pending = [PendingPrefill(1.0, 0.2), PendingPrefill(1.1, 0.3), PendingPrefill(9.0, 0.1)]
    result = waiting_slack(pending, start_s=0.0)
    assert math.isclose(result.tightest_s, 0.6)
    assert result.lost == ()


def test_a_lost_request_neither_binds_nor_delays() -> None:
    pending = [PendingPrefill(0.1, 0.2), PendingPrefill(0.5, 0.4)]
    result = waiting_slack(pending, start_s=0.0)
    assert result.lost == (0,)
    assert math.isclose(result.tightest_s, 0.1)


def test_nothing_pending_binds_nothing() -> None:
    assert waiting_slack([], 5.0).tightest_s == math.inf


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 2)), max_size=20), st.floats(0, 10))
def test_lending_the_slack_makes_no_kept_request_late(items: list[tuple[float, float]], start: float) -> None:
    pending = [PendingPrefill(due, work) for due, work in sorted(items)]
    result = waiting_slack(pending, start)
    if result.tightest_s == math.inf:
        return
    at = start + result.tightest_s
    for position, item in enumerate(pending):
        if position not in result.lost:
            at += item.work_s
            assert at <= item.due_s + 1e-6


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.01, 1)), max_size=7),
    st.floats(0, 1),
)
def test_as_few_as_possible_are_given_up(items: list[tuple[float, float]], start: float) -> None:
    pending = [PendingPrefill(due, work) for due, work in sorted(items)]

    def on_time(chosen: tuple[int, ...]) -> bool:
        at = start
        for position in chosen:
            at += pending[position].work_s
            if at > pending[position].due_s:
                return False
        return True

    positions = range(len(pending))
    most = max(
        len(some) for n in range(len(pending) + 1) for some in combinations(positions, n) if on_time(some)
    )
    lost = waiting_slack(pending, start).lost
    assert len(pending) - len(lost) == most


def test_the_longest_gives_way_to_two_short_ones() -> None:
    pending = [PendingPrefill(1.0, 0.9), PendingPrefill(1.1, 0.3), PendingPrefill(1.2, 0.3)]
    assert waiting_slack(pending, start_s=0.0).lost == (0,)


def test_a_row_with_many_tokens_to_come_can_catch_up() -> None:
    assert latest_catching_up(10.0, 0.05, 0) == 10.0
    assert math.isclose(latest_catching_up(10.0, 0.05, 100), 11.25)
