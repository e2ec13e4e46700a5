import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.memory.headroom import Bounds, RtDemand, headroom_bounds


def steady(sigmas: float, *, rate: int = 10, prompt: int = 400, output: int = 100) -> RtDemand:
    demand = RtDemand(window_s=20.0, sigmas=sigmas)
    for step in range(300 * rate):
        demand.arrived(step / rate, prompt, output)
    return demand


def held(demand: RtDemand, steps: list[float], now_s: float = 300.0, step_s: float = 0.02) -> list[float]:
    return [float(tokens) for tokens in demand.held_after(np.array(steps), now_s=now_s, step_s=step_s)]


def test_no_demand_no_expectation():
    assert held(RtDemand(), [0.0, 10.0]) == [0.0, 0.0]


def test_steady_demand_is_rate_times_prompts_and_what_they_have_made():
    # 50 steps of 20 ms: ten requests of 400 tokens that have made 25 tokens on average.
    assert held(steady(0.0), [50.0])[0] == pytest.approx(10 * (400 + 25), rel=0.05)


def test_who_came_long_ago_has_gone_again():
    demand = steady(0.0)
    assert held(demand, [100.0]) == held(demand, [10_000.0])


def test_bursts_add_standard_deviations():
    extra = held(steady(2.0), [50.0])[0] - held(steady(0.0), [50.0])[0]
    assert extra == pytest.approx(2 * math.sqrt(10 * 400**2), rel=0.05)


def test_demand_fades():
    demand = RtDemand(window_s=10.0)
    demand.arrived(0.0, 1000, 10)
    assert held(demand, [5.0], now_s=100.0)[0] < 0.02 * held(demand, [5.0], now_s=0.0)[0]


def test_a_clock_that_stands_still_or_steps_back_is_harmless():
    demand = RtDemand()
    demand.arrived(10.0, 100, 10)
    demand.arrived(9.0, 100, 10)
    assert held(demand, [5.0], now_s=9.0) == held(demand, [5.0], now_s=10.0)
    assert held(demand, [5.0], now_s=9.0)[0] > 0


@given(st.lists(st.floats(0, 1e7), min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_the_headroom_is_within_its_bounds(expected, one, other):
    low, high = min(one, other), max(one, other)
    kept = Bounds(low, high).clip(np.array(expected), 10_000)
    assert (kept >= low * 10_000).all()
    assert (kept <= high * 10_000).all()


@pytest.mark.parametrize("bounds", [(-0.1, 0.5), (0.5, 0.2), (0.0, 1.5)])
def test_impossible_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="headroom shares"):
        Bounds(*bounds)


@given(st.none() | st.floats(0, 1), st.none() | st.floats(0, 1), st.booleans())
def test_what_is_set_holds_and_what_is_not_follows(least, most, host):
    if least is not None and most is not None and least > most:
        least, most = most, least
    bounds = headroom_bounds(least, most, host_keeps_preempted=host)
    assert least in (None, bounds.min_share)
    assert most in (None, bounds.max_share)


def test_where_preemption_loses_nothing_less_is_kept_free():
    with_host = headroom_bounds(None, None, host_keeps_preempted=True)
    without = headroom_bounds(None, None, host_keeps_preempted=False)
    assert with_host.max_share < without.max_share
    assert with_host.min_share < without.min_share
