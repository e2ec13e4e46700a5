from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bros_sglang.policies.output_length import OutputLength

lengths = st.lists(st.integers(1, 2000), min_size=20, max_size=60)


def taught(finished: list[int]) -> OutputLength:
    output = OutputLength()
    for tokens in finished:
        output.observe(tokens)
    return output


def test_before_anything_finished_half_the_limit_is_expected() -> None:
    assert OutputLength().expected_remaining(200, 0) == 101


@settings(deadline=None)
@given(lengths, st.integers(0, 2500))
def test_the_mean_of_those_that_went_beyond(finished: list[int], made: int) -> None:
    recent = finished[-512:]
    beyond = [tokens - made for tokens in recent if tokens > made]
    expected = taught(finished).expected_remaining(10_000, made)
    if len(beyond) >= 4:
        assert expected == int(statistics.fmean(beyond)) + 1 or expected == pytest.approx(
            statistics.fmean(beyond) + 1, abs=1
        )
    else:
        assert expected == int(0.25 * made) + 1


@settings(deadline=None)
@given(lengths, st.integers(0, 2500), st.integers(1, 3000), st.floats(0, 0.999))
def test_never_beyond_the_clients_limit(finished: list[int], made: int, limit: int, quantile: float) -> None:
    output = taught(finished)
    for remaining in (
        output.expected_remaining(limit, made),
        output.likely_remaining(limit, made, quantile),
    ):
        assert 0 <= remaining <= max(limit - made, 0)


@settings(deadline=None)
@given(lengths)
def test_spread_quantiles_spread_ends_as_the_lengths_are(finished: list[int]) -> None:
    output = taught(finished)
    spread = [output.likely_remaining(10_000, 0, (i + 0.5) / 50) for i in range(50)]
    assert spread == sorted(spread)
    assert min(finished[-512:]) <= spread[0] - 1 <= statistics.median_high(finished[-512:])
    assert max(finished[-512:]) >= spread[-1] - 1 >= statistics.median_low(finished[-512:])


def test_only_the_last_finished_count() -> None:
    output = taught([1000] * 600 + [10] * 512)
    assert output.expected_remaining(10_000, 0) == 11
