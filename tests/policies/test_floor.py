from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.policies.aimd import AimdCap
from bros_sglang.policies.floor import FloorShare


def test_time_is_owed_while_best_effort_waits_and_paid_back_by_running() -> None:
    floor = FloorShare(share=0.1, largest_s=0.05)
    floor.step(seconds=0.2, best_effort_share=0.0, best_effort_waits=True)
    assert abs(floor.owed_s - 0.02) < 1e-9
    floor.step(seconds=0.05, best_effort_share=0.5, best_effort_waits=True)
    assert floor.owed_s == 0.0


def test_nothing_is_owed_to_nobody() -> None:
    floor = FloorShare(share=0.1)
    floor.step(seconds=10.0, best_effort_share=0.0, best_effort_waits=True)
    assert floor.is_due
    floor.step(seconds=0.1, best_effort_share=0.0, best_effort_waits=False)
    assert floor.owed_s == 0.0


@given(st.floats(0.01, 0.5), st.lists(st.floats(0.001, 0.1), min_size=200, max_size=400))
def test_a_server_that_pays_what_it_owes_keeps_the_share(share: float, steps: list[float]) -> None:
    """Real-time work takes every step but those in which best-effort work is owed at least a millisecond."""
    floor = FloorShare(share=share)
    used = total = 0.0
    for seconds in steps:
        part = min(1.0, floor.owed_s / seconds) if floor.owed_s >= 1e-3 else 0.0
        used += part * seconds
        total += seconds
        floor.step(seconds=seconds, best_effort_share=part, best_effort_waits=True)
    assert used <= share * total + 0.1
    assert used >= 0.8 * share * total - 0.15


def test_the_doubling_cap_falls_back_at_once() -> None:
    cap = AimdCap()
    assert [cap.update(binds=False) for _ in range(3)] == [256, 512, 1024]
    assert cap.update(binds=True) == 128


def test_what_it_had_before_a_burst_counts() -> None:
    floor = FloorShare(share=0.1, largest_s=0.05, credit_s=0.3)
    floor.step(seconds=1.0, best_effort_share=1.0, best_effort_waits=True)
    floor.step(seconds=2.9, best_effort_share=0.0, best_effort_waits=True)
    assert floor.owed_s == 0.0
    floor.step(seconds=1.0, best_effort_share=0.0, best_effort_waits=True)
    assert floor.is_due


def test_no_share_owes_nothing() -> None:
    floor = FloorShare(share=0.0)
    floor.step(seconds=100.0, best_effort_share=0.0, best_effort_waits=True)
    assert not floor.is_due
    assert floor.owed_s == 0.0
