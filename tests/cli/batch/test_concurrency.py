"""The limit of one server, driven by a simulated server: pure numbers, no clock."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.cli.batch.concurrency import Concurrency


def simulate(control, *, slots, service_s=0.05, queue=10**9, tells=False, duration_s=60.0):
    """Run a server with `slots` places, the rest waiting, and more than `queue` waiting pushed back."""
    now_s, finished, pushed, peak = 0.0, 0, 0, 0
    in_flight: list[tuple[float, float]] = []  # end, sent
    free_at = [0.0] * slots
    next_look_s = 1.0
    while now_s < duration_s:
        while len(in_flight) < control.limit:
            if len(in_flight) >= slots + queue:
                pushed += 1
                control.on_pushback()
                now_s += 0.001
                continue
            start_s = max(now_s, heapq.heappop(free_at))
            heapq.heappush(free_at, start_s + service_s)
            heapq.heappush(in_flight, (start_s + service_s, now_s))
        control.on_full()
        peak = max(peak, len(in_flight))
        end_s, sent_s = heapq.heappop(in_flight)
        now_s = max(now_s, end_s)
        finished += 1
        control.on_success(sent_s, now_s, 100)
        if tells and now_s >= next_look_s:
            next_look_s = now_s + 1.0
            control.on_queue(max(0, len(in_flight) - slots), min(len(in_flight), slots), now_s)
    return finished / now_s, pushed, peak


@pytest.mark.parametrize("slots", [2, 8, 64, 128])
@pytest.mark.parametrize("tells", [False, True])
def test_the_server_is_fed_and_not_flooded(slots, tells):
    control = Concurrency(initial=16, maximum=1024)
    rate, _, _ = simulate(control, slots=slots, tells=tells)
    assert rate > 0.9 * slots / 0.05
    assert 0.9 * slots <= control.limit <= max(4 * slots, slots + 32)


def test_push_back_is_met_with_less():
    control = Concurrency(initial=256, maximum=1024)
    rate, pushed, _ = simulate(control, slots=8, queue=4)
    assert rate > 0.85 * 8 / 0.05
    assert pushed < 0.1 * rate * 60
    assert control.limit <= 24


def test_a_stray_429_changes_nothing():
    control = Concurrency(initial=32, maximum=32)
    for attempt in range(2000):
        if attempt % 100 == 50:
            assert not control.on_pushback()
        control.on_success(attempt * 0.001, attempt * 0.001 + 0.02, 1)
    assert control.limit == 32


def test_a_server_that_takes_nobody_is_left_alone_soon():
    control = Concurrency(initial=64, maximum=64)
    said_busy = [control.on_pushback() for _ in range(200)]
    assert any(said_busy[:40])
    assert control.limit == 1


def test_a_fixed_limit_stays():
    control = Concurrency(initial=1, maximum=1000, fixed=7)
    simulate(control, slots=100, duration_s=5)
    control.on_pushback()
    assert control.limit == 7


@given(
    st.lists(
        st.one_of(
            st.just("push"),
            st.just("full"),
            st.tuples(st.floats(0.001, 100), st.floats(0, 1e6)),
            st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.just("queue")),
        ),
        max_size=200,
    ),
    st.integers(1, 500),
    st.integers(1, 500),
)
def test_the_limit_stays_in_its_bounds(events, initial, maximum):
    control = Concurrency(initial=initial, maximum=maximum)
    now_s = 0.0
    for event in events:
        if event == "push":
            control.on_pushback()
        elif event == "full":
            control.on_full()
        elif len(event) == 3:
            control.on_queue(event[0], event[1], now_s)
        else:
            now_s += event[0]
            control.on_success(now_s - event[0], now_s, event[1])
        assert 1 <= control.limit <= maximum
