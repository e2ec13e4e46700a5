"""Sums and samples of the last minute, against a plain list of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.scheduler.last_minute import WINDOW_S, MinuteSamples, MinuteSums, percentile

GAPS = st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(1, 9)), max_size=80)


@given(GAPS, st.floats(0.0, 130.0))
def test_sums_hold_the_last_minute_to_within_a_second(gaps, wait_s):
    total = [0]
    sums = MinuteSums(lambda: total)
    now_s, events = 1000.0, []
    for gap_s, amount in gaps:
        now_s += gap_s
        sums.note(now_s)
        total[0] += amount
        events.append((now_s, amount))
    now_s += wait_s
    (found,) = sums.over_last_minute(now_s)
    surely = sum(amount for at_s, amount in events if at_s > now_s - WINDOW_S + 1.0)
    at_most = sum(amount for at_s, amount in events if at_s > now_s - WINDOW_S)
    assert surely <= found <= at_most


@given(GAPS)
def test_samples_are_those_of_the_last_minute(gaps):
    samples = MinuteSamples()
    now_s, events = 0.0, []
    for gap_s, value in gaps:
        now_s += gap_s
        samples.add(now_s, value)
        events.append((now_s, value))
    assert samples.values(now_s) == [value for at_s, value in events if at_s > now_s - WINDOW_S]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([3.0], 0.99, 3.0), ([4, 1, 3, 2], 0.5, 3), (list(range(100)), 0.99, 99)],
)
def test_percentile(values, share, expected):
    assert percentile(values, share) == expected
