import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.memory.headroom import (
    PoolView,
    RtDemand,
    best_effort_room,
    real_time_room,
    reserve_tokens,
)


def test_no_demand_no_expectation():
    assert RtDemand().expected_tokens(100.0) == 0.0


def test_steady_demand_is_rate_times_size_times_horizon():
    demand = RtDemand(window_s=20.0, sigmas=0.0)
    for step in range(2000):  # 10 requests/s of 500 tokens; 5,000 tokens/s given back
        demand.arrived(step / 10, 500)
        demand.gave_back(step / 10, 500)
    assert demand.horizon_s(200.0) == pytest.approx(0.1, rel=0.02)
    assert demand.expected_tokens(200.0) == pytest.approx(10 * 500 * 0.1, rel=0.02)


def test_bursts_add_two_standard_deviations():
    calm, wary = RtDemand(sigmas=0.0), RtDemand(sigmas=2.0)
    for step in range(3000):
        for demand in (calm, wary):
            demand.arrived(step / 10, 400)
            demand.gave_back(step / 10, 100)
    horizon = calm.horizon_s(300.0)
    extra = wary.expected_tokens(300.0) - calm.expected_tokens(300.0)
    assert extra == pytest.approx(2 * math.sqrt(10 * horizon * 400**2), rel=0.02)


def test_demand_fades():
    demand = RtDemand(window_s=10.0)
    demand.arrived(0.0, 1000)
    assert demand.expected_tokens(100.0) < 0.02 * demand.expected_tokens(0.0)


def test_nothing_given_back_means_the_whole_window():
    demand = RtDemand(window_s=10.0)
    demand.arrived(0.0, 1000)
    assert demand.horizon_s(0.0) == 10.0


def test_a_clock_that_stands_still_or_steps_back_is_harmless():
    demand = RtDemand()
    demand.arrived(10.0, 100)
    demand.arrived(9.0, 100)
    assert demand.expected_tokens(9.0) == demand.expected_tokens(10.0) > 0


@given(st.floats(0, 1e7), st.floats(0, 1), st.floats(0, 1))
def test_the_reserve_is_within_its_bounds(expected, one, other):
    low, high = min(one, other), max(one, other)
    reserve = reserve_tokens(expected, pool_tokens=10_000, min_share=low, max_share=high)
    assert int(low * 10_000) <= reserve <= high * 10_000


@pytest.mark.parametrize("bounds", [(-0.1, 0.5), (0.5, 0.2), (0.0, 1.5)])
def test_impossible_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="headroom shares"):
        reserve_tokens(1.0, pool_tokens=100, min_share=bounds[0], max_share=bounds[1])


tokens = st.integers(0, 10_000)


@given(st.builds(PoolView, tokens, tokens, tokens, tokens, tokens), tokens, tokens)
def test_best_effort_never_eats_the_reserve_nor_held_kv(view, reserve, rt_cache_kept):
    room = best_effort_room(view, reserve=reserve, rt_cache_kept=rt_cache_kept)
    # What is left for real-time once best-effort has taken all it may is the reserve at least.
    assert real_time_room(view) - max(room, 0) >= min(reserve, real_time_room(view))
    without_held = PoolView(view.free, view.be_evictable, view.rt_evictable, 0, view.promised)
    grown = room - best_effort_room(without_held, reserve=reserve, rt_cache_kept=rt_cache_kept)
    assert 0 <= grown <= reserve, "held KV counts as reserve and as nothing else"


def test_best_effort_cache_counts_as_reserve():
    cached = PoolView(free=0, be_evictable=1000, rt_evictable=0, held=0, promised=0)
    assert best_effort_room(cached, reserve=300, rt_cache_kept=0) == 700
    held = PoolView(free=1000, be_evictable=0, rt_evictable=0, held=300, promised=0)
    assert best_effort_room(held, reserve=300, rt_cache_kept=0) == 1000


def test_real_time_cache_is_left_alone_up_to_its_share():
    view = PoolView(free=0, be_evictable=0, rt_evictable=1000, held=0, promised=0)
    assert best_effort_room(view, reserve=0, rt_cache_kept=800) == 200
    assert best_effort_room(view, reserve=0, rt_cache_kept=2000) == 0
