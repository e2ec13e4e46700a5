"""The /bros/status schema: sums over schedulers, and what it takes and refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bros_sglang.mock_server.live_status import simulated_status
from bros_sglang.status import BrosStatus, ClassStatus, LastMinute, sum_classes


@given(st.floats(0, 1e6), st.integers(0, 1000))
def test_the_simulated_server_keeps_its_books(uptime_s, waiting):
    status = simulated_status(uptime_s, 1e9 + uptime_s, be_waiting=waiting)
    again = BrosStatus.model_validate_json(status.model_dump_json())
    assert again == status
    (scheduler,) = status.schedulers
    kv = scheduler.kv
    held = [part.kv.running_tokens + part.kv.cached_tokens for part in (scheduler.rt, scheduler.be)]
    assert sum(held) + kv.free_tokens == kv.pool_tokens
    assert held[1] <= kv.be_frontier <= kv.rt_frontier == kv.pool_tokens - held[0]


def test_a_newer_server_can_be_read_and_rubbish_cannot():
    data = simulated_status(1.0, 2.0).model_dump()
    data["from_the_future"] = {"x": 1}
    assert BrosStatus.model_validate(data).policy == "bros"
    for change in ({"schema_version": 2}, {"schedulers": []}, {"policy": None}):
        with pytest.raises(ValidationError):
            BrosStatus.model_validate({**data, **change})


def test_sums_over_schedulers():
    def part(finished, attainment, p99):
        minute = LastMinute(
            finished=finished, attainment=attainment, ttft_p99_s=p99, output_tokens_per_s=10.0
        )
        return ClassStatus(running=2, waiting=1, last_minute=minute, oldest_waiting_s=p99)

    both = sum_classes([part(30, 1.0, 0.1), part(10, 0.6, 0.4), part(0, None, None)])
    assert both.running == 6
    assert both.last_minute.output_tokens_per_s == 30.0
    assert both.last_minute.attainment == pytest.approx(0.9)
    assert both.last_minute.ttft_p99_s == 0.4
    assert both.oldest_waiting_s == 0.4
    assert sum_classes([part(0, None, None), part(0, None, None)]).last_minute.attainment is None


def test_totals_of_a_server():
    one = simulated_status(50.0, 60.0)
    scheduler = one.schedulers[0]
    two = one.model_copy(update={"schedulers": [scheduler, scheduler]})
    assert two.be.running == 2 * one.be.running
    assert two.tightest_slack_s == one.tightest_slack_s
    assert two.preemptions.preempted_total == 2 * one.preemptions.preempted_total
