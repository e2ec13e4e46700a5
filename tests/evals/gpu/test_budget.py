"""A run that ends by itself before its command is killed."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from bros_sglang.evals.gpu.budget import STOP_S, Budget, BudgetSpentError, ends_with


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_time_to_stop_is_kept_back() -> None:
    clock = Clock()
    budget = Budget(STOP_S + 50.0, clock)
    assert budget.left_s() == pytest.approx(50.0)
    assert budget.allows(50.0)
    assert not budget.allows(50.1)
    clock.now_s += 30.0
    assert budget.left_s() == pytest.approx(20.0)
    clock.now_s += 1000.0
    assert budget.left_s() == 0.0


def test_without_a_limit_everything_is_allowed() -> None:
    budget = Budget(None)
    assert budget.allows(1e9)
    with ends_with(budget):
        pass


def test_a_body_that_outlasts_the_budget_is_cut_off() -> None:
    def endless() -> None:
        while True:  # ended by the alarm alone
            pass

    with pytest.raises(BudgetSpentError), ends_with(Budget(STOP_S + 0.05)):
        endless()


def test_a_body_that_catches_every_exception_is_cut_off_too() -> None:
    def stubborn() -> None:
        while True:
            try:
                while True:
                    pass
            except Exception:  # noqa: BLE001
                pass

    with pytest.raises(BudgetSpentError), ends_with(Budget(STOP_S + 0.05)):
        stubborn()


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_load_on_an_event_loop_is_cut_off_too(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def load() -> None:
        while True:
            await asyncio.sleep(0.005)

    def run() -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(load())

    with pytest.raises(BudgetSpentError), ends_with(Budget(STOP_S + 0.05)):
        run()


def test_the_alarm_is_off_again_afterwards() -> None:
    import signal

    with ends_with(Budget(STOP_S + 1000.0)):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
