from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.memory.eviction import (
    MAX_WORTH_EPOCHS,
    EvictionClock,
    node_priority,
    priority_class,
    worth_epochs,
)
from bros_sglang.request_class import RequestClass

RT, BE = RequestClass.RT, RequestClass.BE


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, MAX_WORTH_EPOCHS))
def test_any_best_effort_goes_before_any_real_time(old, new, worth):
    assert node_priority(BE, new, worth) < node_priority(RT, old, 0)
    assert priority_class(node_priority(BE, new, worth)) is BE
    assert priority_class(node_priority(RT, old, worth)) is RT
    assert node_priority(RT, new, worth) < 2**63


def test_the_clock_ticks_sixteen_times_per_turnover():
    clock = EvictionClock(pool_tokens=1600)
    seen = []
    for _ in range(32):
        clock.advance(50)
        seen.append(clock.epoch)
    assert seen == [index // 2 for index in range(1, 33)]


def test_an_empty_pool_does_not_divide_by_zero():
    assert EvictionClock(pool_tokens=0).epoch == 0


def test_worth_grows_with_waiters_and_depth_and_is_bounded():
    worth = [worth_epochs(is_prompt=True, waiting=n) for n in (0, 1, 2, 4, 8, 10**9)]
    assert worth == [1, 3, 5, 7, 9, MAX_WORTH_EPOCHS]
    assert worth_epochs(is_prompt=False) == 0
    assert worth_epochs(is_prompt=False, context_tokens=40_000) == 2


def test_what_was_once_wanted_is_overtaken():
    """GreedyDual: eight waiters at epoch 3 lose to a plain prompt from epoch 12 on."""
    wanted = node_priority(BE, 3, worth_epochs(is_prompt=True, waiting=8))
    plain = [node_priority(BE, epoch, worth_epochs(is_prompt=True)) for epoch in range(20)]
    assert next(epoch for epoch in range(20) if plain[epoch] > wanted) == 12
