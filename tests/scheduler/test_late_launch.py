"""A real-time request that arrives during a step runs in the next one, under overlap scheduling, too."""

from __future__ import annotations

from typing import Any

import pytest

from bros_sglang.policies.step_time import StepTimeModel
from bros_sglang.request_class import RequestClass
from bros_sglang.scheduler.steps import StepMeter, StepShape
from tests.scheduler.watched_replay import Draw, Seen, Watch, watch

RT, BE = RequestClass.RT, RequestClass.BE
CHATS = Draw(RT, 60, 40, (20, 40), (1, 1), limit=1)  # of one token: they end with their first
WORK = Draw(BE, 120, 1000, (100, 200), (150, 200), limit=200)


def served(flags: dict[str, Any]) -> Seen:
    return watch(Watch((CHATS, WORK), pool_tokens=8192, slots=64, flags=flags, check_each_pass=False))


def mean_ttft_s(seen: Seen) -> float:
    arrivals = {request.rid: request.arrival_s for request in CHATS.workload(1)}
    assert all(seen.ended[rid] == (1, None) for rid in arrivals)
    return sum(seen.finished_s[rid] - arrivals[rid] for rid in arrivals) / len(arrivals)


@pytest.mark.server
def test_an_arrival_waits_for_one_step_and_not_for_two() -> None:
    late = served({})
    at_once = served({"no-bros-late-launch": True})
    # Without overlap an arrival waits for the running step alone.
    shortest_s = mean_ttft_s(served({"disable-overlap-schedule": True}))
    assert mean_ttft_s(late) - shortest_s < 0.5 * (mean_ttft_s(at_once) - shortest_s)
    assert at_once.late_launches == 0
    assert late.late_launches > 100
    assert late.late_launches_missed <= 0.02 * late.late_launches


def test_a_step_runs_from_its_launch_or_the_end_of_the_one_before() -> None:
    meter = StepMeter(StepTimeModel())
    shape = StepShape(decode_rows=4, decode_context=100)
    meter.launched(1, shape, 10.0, 10.0)
    meter.launched(2, shape, 10.5, 10.5)
    begun = meter.running(1)
    assert begun is not None
    assert begun[0] == 10.0
    meter.ended(1, 12.0)
    assert meter.running(1) is None
    begun = meter.running(2)
    assert begun is not None
    assert begun[0] == 12.0
    assert begun[1] > 0.0
    assert meter.running(3) is None
