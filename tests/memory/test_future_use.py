from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bros_sglang.memory.future_use import FutureUse, Row

rows = st.lists(st.builds(Row, st.integers(0, 50), st.integers(0, 500)), max_size=12)


def fullest(requests: list[Row]) -> float:
    """Count token by token: a request grows with every step and is gone after its last."""
    now = sum(row.held for row in requests)
    most = now
    for step in range(1, int(max((row.remaining for row in requests), default=0)) + 1):
        most = max(most, sum(row.held + step for row in requests if row.remaining >= step))
    return most - now


@settings(deadline=None)
@given(rows)
def test_the_fullest_moment_is_that_of_a_count_step_by_step(requests: list[Row]) -> None:
    assert FutureUse(requests).growth() == pytest.approx(fullest(requests))


@settings(deadline=None)
@given(rows, st.builds(Row, st.integers(0, 50), st.integers(0, 500)))
def test_a_candidate_counts_with_what_it_takes_at_once(requests: list[Row], candidate: Row) -> None:
    future = FutureUse(requests)
    with_it = future.growth_with(candidate)
    assert with_it == pytest.approx(candidate.held + fullest([*requests, candidate]))
    future.add(candidate)
    assert future.growth() == pytest.approx(fullest([*requests, candidate]))
    assert len(future) == len(requests) + 1


@settings(deadline=None)
@given(rows)
def test_never_more_than_every_output_reserved(requests: list[Row]) -> None:
    assert FutureUse(requests).growth() <= sum(row.remaining for row in requests)


def test_arrivals_count_until_the_fullest_moment() -> None:
    # 100 steps: the row has grown by 100, arrivals hold 3 tokens for each step.
    assert FutureUse([Row(100, 500)], lambda steps: 3 * steps).growth() == 400
    # The second row's end gives back more than arrivals take until the first one's.
    future = FutureUse([Row(100, 10), Row(20, 5000)], lambda steps: np.minimum(3 * steps, 200))
    assert future.growth() == 2 * 20 + 60


def test_an_empty_engine_grows_by_nothing() -> None:
    assert FutureUse().growth() == 0.0
    assert FutureUse().growth_with(Row(30, 100)) == 130
