"""How long a run may still take, so that a command that is killed after ten minutes ends by itself before."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STOP_S = 20.0  # kept back for stopping servers and writing what was measured


class BudgetSpentError(KeyboardInterrupt):
    """The budget ended while a cell ran. A KeyboardInterrupt, since event loops let nothing else through."""


class Budget:
    """Seconds from now on; without a limit everything is allowed."""

    def __init__(self, seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._end_s = None if seconds is None else now() + seconds

    def left_s(self) -> float:
        """Return the seconds that work may still take; never negative, infinite without a limit."""
        if self._end_s is None:
            return float("inf")
        return max(0.0, self._end_s - STOP_S - self._now())

    def allows(self, estimate_s: float) -> bool:
        """Tell whether a cell that takes about so long can still be done."""
        return self.left_s() >= estimate_s


@contextlib.contextmanager
def ends_with(budget: Budget) -> Iterator[None]:
    """Raise BudgetSpentError in the body when the budget ends before it. On the main thread only."""
    left_s = budget.left_s()
    if left_s == float("inf") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def spent(_number: int, _frame: object) -> None:
        raise BudgetSpentError

    before = signal.signal(signal.SIGALRM, spent)
    signal.setitimer(signal.ITIMER_REAL, max(left_s, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
