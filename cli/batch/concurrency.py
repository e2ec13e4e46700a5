"""How many requests to keep in flight at one server: pure decisions over times and counts.

Three signals, the surest first:

1. Push-back (429, 503): once per round the limit is cut by half of the share that was pushed back (as DCTCP
   does), so that a stray 429 costs nothing and a server that takes nobody is left alone within a few rounds.
2. The server's queue, where it tells (`/bros/status`, `/v1/loads`): enough BE waiting that the server never
   runs dry, not so much that it is flooded.
3. Throughput: the limit doubles while each doubling brings a tenth more work per second, then climbs in
   small steps that are taken back when they bring nothing. More in flight than the server can work on only
   lengthens its queue: latency grows, throughput does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

TOLERATED: Final = 0.05  # share of a round pushed back that changes nothing
ROUND: Final = 128  # attempts, or twice the limit if that is more: a round in which a few 429 are few
BUSY_SHARE: Final = 0.25  # of a round so far, and …
BUSY_PUSHBACKS: Final = 3  # … so many, or half the limit if that is more: the round ends at once
SMALLEST_CUT: Final = 0.05  # of the limit
LARGEST_QUEUE_CUT: Final = 0.3  # of the limit, per reading of the queue
DOUBLING_GAIN: Final = 1.10  # what a doubling must bring to be repeated
STEP: Final = 0.10  # of the limit, when climbing
STEP_GAIN: Final = 1.02  # what a step up must bring to be kept
STEP_LOSS: Final = 0.98  # what a step down may cost to be kept
HOLD_WINDOWS: Final = 8  # between two trials
MIN_WINDOW_S: Final = 0.5
QUEUE_FRESH_S: Final = 10.0  # a reading of the server's queue older than this says nothing


class _Phase(Enum):
    DOUBLING = auto()
    HOLDING = auto()
    TRIED_UP = auto()
    TRIED_DOWN = auto()


@dataclass(slots=True)
class _Measure:
    """One stretch of time at one limit."""

    start_s: float
    finished: int = 0
    work: float = 0.0  # tokens
    latency_s: float = 0.0  # summed
    was_full: bool = False  # the limit held something back


class Concurrency:
    """The limit of one server. Times are seconds of any one steady clock."""

    def __init__(self, *, initial: int, maximum: int, minimum: int = 1, fixed: int | None = None) -> None:
        """Start at `initial` between `minimum` and `maximum`; `fixed` takes all decisions away."""
        self._fixed = fixed
        self._minimum, self._maximum = minimum, max(minimum, maximum)
        self._initial = min(max(initial, minimum), self._maximum)
        self._limit = float(self._initial)
        self._phase = _Phase.DOUBLING
        self._before = (0.0, self._limit)  # (work per second, limit) before the last change
        self._held = 0  # windows since the last trial
        self._trials = 0
        self._round_ended = self._round_pushed = 0  # attempts since the round began
        self._queue_s = float("-inf")
        self._window: _Measure | None = None

    @property
    def limit(self) -> int:
        """Requests that may be in flight now."""
        return self._fixed if self._fixed is not None else int(self._limit)

    def reset(self) -> None:
        """Begin anew, after the server was away."""
        self._limit = float(self._initial)
        self._phase = _Phase.DOUBLING
        self._before = (0.0, self._limit)
        self._round_ended = self._round_pushed = 0
        self._window = None

    def on_full(self) -> None:
        """Note that a request had to wait for the limit."""
        if self._window is not None:
            self._window.was_full = True

    def on_success(self, sent_s: float, now_s: float, work: float) -> None:
        """Note an answer: `work` is the tokens that the server had to compute for it."""
        self._end_attempt()
        if self._window is None:
            self._window = _Measure(now_s)
            return
        window = self._window
        window.finished += 1
        window.work += work
        window.latency_s += now_s - sent_s
        duration_s = now_s - window.start_s
        rounds = 1 if self._phase is _Phase.DOUBLING else 2
        enough_s = max(MIN_WINDOW_S, rounds * window.latency_s / window.finished)
        if duration_s >= enough_s and window.finished >= self.limit:
            if window.was_full and now_s - self._queue_s > QUEUE_FRESH_S:
                self._climb(window.work / duration_s)
            self._window = _Measure(now_s)

    def on_pushback(self) -> bool:
        """Note a 429 or 503; tells whether the server as a whole is busy, and not this request unlucky."""
        self._round_pushed += 1
        pushed = self._round_pushed
        many = pushed >= max(BUSY_PUSHBACKS, self.limit // 2)
        busy = many and pushed >= BUSY_SHARE * (self._round_ended + 1)
        self._end_attempt(busy=busy)
        return busy

    def on_queue(self, waiting: int, running: int, now_s: float) -> None:
        """Note the server's queue: keep an eighth of what runs waiting (2 or more), never more than runs."""
        self._queue_s = now_s
        low, high = max(2, running // 8), max(8, running)
        if waiting > high:
            self._phase = _Phase.HOLDING
            self._set(max(self._limit * (1 - LARGEST_QUEUE_CUT), self._limit - (waiting - high) / 2))
        elif waiting < low and self._window is not None and self._window.was_full:
            faster = self._phase is _Phase.DOUBLING and waiting == 0
            self._set(self._limit * (2.0 if faster else 1.0 + STEP) + 1)
            self._window.was_full = False

    def _end_attempt(self, *, busy: bool = False) -> None:
        self._round_ended += 1
        if not busy and self._round_ended < max(ROUND, 2 * self.limit):
            return
        share = self._round_pushed / self._round_ended
        self._round_ended = self._round_pushed = 0
        if share > TOLERATED:
            self._set(self._limit * (1 - max(share / 2, SMALLEST_CUT)))
            self._phase, self._held = _Phase.HOLDING, HOLD_WINDOWS // 2
            self._window = None

    def _climb(self, rate: float) -> None:
        before_rate, before_limit = self._before
        if self._phase is _Phase.DOUBLING:
            if rate >= before_rate * DOUBLING_GAIN:
                self._before = (rate, self._limit)
                self._set(self._limit * 2)
            else:
                self._set(before_limit * (1 + STEP))
                self._hold()
        elif self._phase is _Phase.TRIED_UP and rate >= before_rate * STEP_GAIN:
            self._try(rate, up=True)
        elif self._phase in (_Phase.TRIED_UP, _Phase.TRIED_DOWN):
            kept = self._phase is _Phase.TRIED_DOWN and rate >= before_rate * STEP_LOSS
            if not kept:
                self._set(before_limit)
            self._hold()
        else:
            self._held += 1
            if self._held >= HOLD_WINDOWS:
                self._trials += 1
                self._try(rate, up=self._trials % 3 != 0)

    def _try(self, rate: float, *, up: bool) -> None:
        self._before = (rate, self._limit)
        step = max(1.0, self._limit * STEP)
        self._set(self._limit + step if up else self._limit - step)
        self._phase = _Phase.TRIED_UP if up else _Phase.TRIED_DOWN

    def _hold(self) -> None:
        self._phase, self._held = _Phase.HOLDING, 0

    def _set(self, limit: float) -> None:
        self._limit = min(max(limit, float(self._minimum)), float(self._maximum))
