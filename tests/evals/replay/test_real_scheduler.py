"""SGLang's own scheduler in virtual time: nothing but the forward pass and the clock is replaced."""

from __future__ import annotations

import numpy as np
import pytest
from replay_in_process import Case, run_case

from bros_sglang.evals.workloads.request import ListedWorkload, WorkloadRequest
from bros_sglang.request_class import RequestClass

pytestmark = pytest.mark.server  # builds SGLang's scheduler


def workload(
    request_class: RequestClass, count: int, rate: float, seed: int, *, limit: int = 64, prefix: int = 0
) -> ListedWorkload:
    rng = np.random.default_rng(seed)
    at_s, requests = 0.0, []
    for index in range(count):
        at_s += float(rng.exponential(1 / rate))
        prompt, output = int(rng.integers(20, 300)), int(rng.integers(1, 50))
        requests.append(
            WorkloadRequest(
                f"{request_class}-{index}",
                request_class,
                at_s,
                prompt + prefix,
                output,
                limit,
                prefix=((7, prefix),) if prefix else (),
                ttft_ms=400.0,
                tpot_ms=50.0,
            )
        )
    return ListedWorkload("drawn", tuple(requests))


BOTH = (workload(RequestClass.RT, 30, 8, 1), workload(RequestClass.BE, 60, 30, 2, prefix=64))
PRIORITY = {
    "schedule-policy": "fcfs",
    "enable-priority-scheduling": True,
    "chunked-prefill-size": 256,
    "enable-mixed-chunk": True,
    "radix-eviction-policy": "priority",
}


@pytest.mark.parametrize("overlap", [True, False])
def test_the_forward_pass_is_the_only_thing_replaced(overlap: bool) -> None:
    flags = PRIORITY | ({} if overlap else {"disable-overlap-schedule": True})
    tagging = {"rt_priority": 100, "be_priority": -100}
    stub, stub_passes = run_case(Case(BOTH, flags, tagging, slots=12))
    true, true_passes = run_case(Case(BOTH, flags, tagging, slots=12, compute_underneath=True))
    assert {mode for mode, *_ in stub_passes} >= {"MIXED", "DECODE"}
    assert stub_passes == true_passes  # modes, request ids, extend and sequence lengths, KV slots, times
    assert [(log.request.rid, list(log.token_s)) for log in stub.logs] == [
        (log.request.rid, list(log.token_s)) for log in true.logs
    ]


def test_two_processes_do_the_same() -> None:
    case = Case(BOTH, {"schedule-policy": "lpm", "chunked-prefill-size": 256})
    first, first_passes = run_case(case)
    second, second_passes = run_case(case)
    assert first_passes == second_passes
    assert first.samples == second.samples
    assert [list(log.token_s) for log in first.logs] == [list(log.token_s) for log in second.logs]


def test_each_request_gets_its_traced_tokens_though_admission_knows_only_the_limit() -> None:
    outcome, _ = run_case(Case(BOTH, {"schedule-policy": "fcfs", "chunked-prefill-size": 256}))
    assert len(outcome.logs) == 90
    for log in outcome.logs:
        assert len(log.token_s) == log.request.output_tokens < log.request.max_new_tokens
        assert log.error is None
        assert log.finish_s == log.token_s[-1]
        assert log.token_s[0] > log.arrival_s
    assert outcome.modules_with_real_time == []
    # The shared prefix of BE is found by all that come after the first.
    assert sum(log.cached_tokens >= 64 for log in outcome.logs) > 40


def test_a_full_pool_retracts_and_recomputes() -> None:
    """Admission reserves less than the limit for those that run: they outgrow the pool, as they do live."""
    crowd = workload(RequestClass.BE, 40, 1000, 3, limit=60)
    long = tuple(
        WorkloadRequest(r.rid, r.request_class, r.arrival_s, r.prompt_tokens, 100, 101)
        for r in crowd.requests
    )
    flags = {"schedule-policy": "fcfs", "schedule-conservativeness": 0.05}
    outcome, _ = run_case(Case((ListedWorkload("crowd", long),), flags, pool_tokens=1024))
    assert sum(log.preemptions for log in outcome.logs) > 0
    assert outcome.counts.recomputed_tokens > 0
    assert all(len(log.token_s) == 100 for log in outcome.logs)


def test_time_passes_on_the_device_not_in_the_scheduler() -> None:
    """One request alone: TTFT is the prefill's step and TPOT the decode step, whatever the machine does."""
    request = WorkloadRequest("one", RequestClass.RT, 1.0, 100, 10, 10)
    outcome, passes = run_case(Case((ListedWorkload("one", (request,)),), {"schedule-policy": "fcfs"}))
    log = outcome.logs[0]
    prefill_s = passes[0][-1]
    assert log.token_s[0] == pytest.approx(1.0 + prefill_s + 300e-6, abs=1e-9)
    gaps = np.diff(log.token_s)
    assert gaps == pytest.approx([p[-1] for p in passes[1:10]], abs=1e-9)


def test_kv_that_comes_back_from_host_memory_is_counted_and_charged() -> None:
    """Eight prefixes do not fit the pool together: HiCache keeps them on the host and brings them back."""
    requests = tuple(
        WorkloadRequest(f"r{i}", RequestClass.RT, i * 0.05, 420, 4, 4, prefix=((i % 8, 400),))
        for i in range(48)
    )
    flags = {
        "schedule-policy": "fcfs",
        "enable-hierarchical-cache": True,
        "hicache-ratio": 4,
        "hicache-io-backend": "direct",
        "hicache-mem-layout": "layer_first",
        "hicache-write-policy": "write_through",
    }
    case = Case((ListedWorkload("prefixes", requests),), flags, pool_tokens=1024)
    outcome, passes = run_case(case)
    assert outcome.counts.loaded_back_tokens >= 400
    assert all(len(log.token_s) == 4 for log in outcome.logs)
    again, passes_again = run_case(case)
    assert passes == passes_again
    assert again.counts.loaded_back_tokens == outcome.counts.loaded_back_tokens


def test_ways_to_the_scheduler_and_back_are_part_of_what_a_client_sees() -> None:
    """The scheduler hears of requests later, the client of tokens; a seat is free when its client knows."""
    from bros_sglang.evals.step_time.frontend import ClassFrontend, Frontend

    flags = {"schedule-policy": "fcfs", "chunked-prefill-size": 256}
    alone = (workload(RequestClass.RT, 8, 0.5, 1),)  # far apart: each is served at once
    plain, plain_passes = run_case(Case(alone, flags, seconds=40.0))
    ways = Frontend(by_class=(("rt", ClassFrontend((0.004,), (0.003,))),))
    delayed, delayed_passes = run_case(Case(alone, flags, seconds=40.0, frontend=ways))
    assert [one[1:5] for one in plain_passes] == [one[1:5] for one in delayed_passes]
    for before, after in zip(plain.logs, delayed.logs, strict=True):
        shift = np.array(after.token_s) - np.array(before.token_s)
        # The way back in full; the way in too, but for the grain at which an idle scheduler looks.
        assert np.all(np.abs(shift - 0.007) < 1e-3)
        assert after.finish_s == after.token_s[-1]
        assert after.arrival_s == before.arrival_s


def test_load_generators_reserve_the_whole_answer() -> None:
    """With `ignore_eos` an answer ends at its limit, and admission takes no share of it for granted."""
    exact = tuple(
        WorkloadRequest(f"be-{i}", RequestClass.BE, 0.0, 50, 60, 60) for i in range(40)
    )  # fmt: skip
    flags = {"schedule-policy": "fcfs", "chunked-prefill-size": 256}
    most = {}
    for ignore_eos in (False, True):
        case = Case(
            (ListedWorkload("exact", exact),), flags, {"ignore_eos": ignore_eos}, pool_tokens=1100, slots=40
        )
        outcome, passes = run_case(case)
        assert all(len(log.token_s) == 60 for log in outcome.logs)
        most[ignore_eos] = max(len(rids) for _, rids, *_ in passes)
    assert 8 <= most[True] <= 10 < most[False]  # ten of 110 tokens fill the pool to the last slot
