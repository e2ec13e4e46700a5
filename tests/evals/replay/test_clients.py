"""Clocks, feeds and records: what stands around the scheduler in a replay."""

from __future__ import annotations

import time
import types
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.evals.metrics.record import TokenTimes
from bros_sglang.evals.replay import stand_in
from bros_sglang.evals.replay.clock import VirtualClock, VirtualTime
from bros_sglang.evals.replay.device import virtual_device_module
from bros_sglang.evals.replay.feed import Feed
from bros_sglang.evals.replay.log import RequestLog
from bros_sglang.evals.replay.records import to_record
from bros_sglang.evals.workloads.build import check_lengths
from bros_sglang.evals.workloads.errors import WorkloadError
from bros_sglang.evals.workloads.request import ListedWorkload, Workload, WorkloadRequest
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass


def test_only_waiting_for_the_device_moves_the_cpu() -> None:
    clock = VirtualClock()
    device = virtual_device_module(types.ModuleType("torch.cpu"), clock)
    first, second = device.Event(), device.Event()
    clock.run_on_device(0.5)
    first.record()
    clock.run_on_device(0.25)
    second.record()
    assert clock.now_s == 0.0
    assert not first.query()
    first.synchronize()
    assert clock.now_s == 0.5
    second.synchronize()
    first.synchronize()  # already past: time does not go back
    assert clock.now_s == 0.75


def test_modules_get_the_virtual_time_and_keep_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("sglang.pretended")
    module.time, module.perf, module.strftime = time, time.perf_counter, time.strftime  # type: ignore[attr-defined]
    kept = types.ModuleType("bros_sglang.evals.pretended")
    kept.time = time  # type: ignore[attr-defined]
    for name in list(stand_in.sys.modules):
        if name.partition(".")[0] in stand_in.PACKAGES:
            monkeypatch.delitem(stand_in.sys.modules, name)
    monkeypatch.setitem(stand_in.sys.modules, module.__name__, module)
    monkeypatch.setitem(stand_in.sys.modules, kept.__name__, kept)
    clock = VirtualClock()
    assert stand_in.real_time_left() == ["sglang.pretended"]
    assert stand_in.install(VirtualTime(clock)) == 2
    assert stand_in.real_time_left() == []
    before_s = module.perf()
    module.time.sleep(3.0)
    assert clock.now_s == 3.0
    assert module.perf() - before_s == module.time.monotonic() - before_s == 3.0
    assert module.time.time_ns() > 10**18
    assert module.time.strftime is time.strftime is module.strftime
    assert kept.time is time


def closed(seats: int) -> Workload:
    return parse_workload(f"paper:outstanding={seats}", RequestClass.BE)


def test_a_closed_loop_keeps_its_seats_filled() -> None:
    feed = Feed([closed(3)], 10.0)
    first = feed.due(0.0)
    assert [request.rid for request, _ in first] == ["be-000000", "be-000001", "be-000002"]
    assert feed.due(1.0) == []
    feed.finished("be-000001", 2.0)
    feed.finished("be-000001", 2.0)  # heard twice: one seat
    assert feed.next_send_s() == 2.0
    assert feed.due(1.9) == []
    assert [(request.rid, at_s) for request, at_s in feed.due(2.5)] == [("be-000003", 2.0)]
    assert not feed.exhausted()


def test_arrivals_after_the_end_are_not_sent() -> None:
    requests = tuple(WorkloadRequest(f"r{i}", RequestClass.RT, i * 1.0, 5, 5, 5) for i in range(6))
    feed = Feed([ListedWorkload("listed", requests)], 3.0)
    assert feed.next_arrival_s() == 0.0
    assert len(feed.due(100.0)) == 3
    assert feed.exhausted()


@given(
    st.lists(st.floats(0, 0.2), max_size=30),
    st.one_of(st.none(), st.floats(1, 1000)),
    st.one_of(st.none(), st.floats(1, 200)),
)
def test_records_judge_tokens_as_live_clients_do(
    gaps: list[float], ttft_ms: float | None, tpot_ms: float | None
) -> None:
    request = WorkloadRequest("r", RequestClass.RT, 2.0, 7, 30, 40, ttft_ms=ttft_ms, tpot_ms=tpot_ms)
    log = RequestLog(request, 2.0)
    live = TokenTimes(2.0, ttft_ms, tpot_ms)
    now_s = 2.0
    for gap in gaps:
        now_s += gap
        log.token_s.append(now_s)
        live.add(now_s)
    record = to_record(log)
    assert record.on_time_tokens == live.on_time_tokens
    assert (record.first_token_s, record.last_token_s) == (live.first_s, live.last_s)
    assert record.max_gap_s == live.max_gap_s
    assert record.generated_tokens == live.generated
    assert record.in_flight


def test_a_request_beyond_the_pool_is_refused_before_the_run() -> None:
    request = WorkloadRequest("long", RequestClass.RT, 0.0, 5000, 10, 10)
    with pytest.raises(WorkloadError, match="5000 prompt"):
        check_lengths(ListedWorkload("one", (request,)), pool_tokens=4096)


def test_token_times_cost_eight_bytes_each() -> None:
    log = RequestLog(WorkloadRequest("r", RequestClass.RT, 0.0, 1, 1, 1), 0.0)
    assert isinstance(log.token_s, array)
    assert log.token_s.itemsize == 8
