from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bros_sglang.evals.replay.feed import Feed
from bros_sglang.evals.replay.free_swap_rule import FreeSwapRule
from bros_sglang.evals.replay.log import RequestLog
from bros_sglang.evals.replay.round_robin import alternate
from bros_sglang.evals.replay.rule_loop import Rule, run_rule
from bros_sglang.evals.replay.tgi_rule import TgiRule
from bros_sglang.evals.replay.vllm_rule import BLOCK_TOKENS, VllmRule
from bros_sglang.evals.step_time.presets import AFFINE
from bros_sglang.evals.workloads.request import ListedWorkload, WorkloadRequest
from bros_sglang.request_class import RequestClass

POOL = 2048

requests = st.lists(
    st.tuples(
        st.sampled_from(list(RequestClass)),
        st.floats(0, 5, allow_nan=False),
        st.integers(1, 900),
        st.integers(1, 120),
        st.integers(0, 200),
    ),
    min_size=1,
    max_size=25,
)


def listed(drawn: list[Any]) -> ListedWorkload:
    return ListedWorkload(
        "drawn",
        tuple(
            WorkloadRequest(f"r{i}", cls, at, prompt, output, output + spare)
            for i, (cls, at, prompt, output, spare) in enumerate(drawn)
        ),
    )


def run(rule: Rule, workload: ListedWorkload, on_pass: Any = lambda _now_s: None) -> Any:
    feed = Feed([workload], 1e6)
    return run_rule(rule, feed, AFFINE, RequestLog, seconds=1e6, drain_s=1e6, on_pass=on_pass)


def check_served(outcome: Any) -> None:
    for log in outcome.logs:
        times = list(log.token_s)
        assert len(times) == log.request.output_tokens
        assert times == sorted(times)
        assert times[0] > log.arrival_s
        assert log.finish_s == times[-1]


@settings(max_examples=60, deadline=None)
@given(requests, st.booleans(), st.integers(1, 8))
def test_vllm_serves_everyone_within_its_pool(drawn: list[Any], by_priority: bool, slots: int) -> None:
    rule = VllmRule(POOL, slots, by_priority=by_priority, token_budget=256)

    def check(_now_s: float) -> None:
        held = sum(rule._blocks.values())
        assert held + rule._free_blocks == POOL // BLOCK_TOKENS
        assert rule._free_blocks >= 0
        assert len(rule.running()) <= slots
        assert all(r.computed_tokens <= rule._blocks[r] * BLOCK_TOKENS for r in rule.running())

    outcome = run(rule, listed(drawn), check)
    check_served(outcome)
    preempted = sum(log.preemptions for log in outcome.logs)
    assert (rule.recomputed_tokens > 0) <= (preempted > 0)


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 8))
def test_free_swap_serves_everyone_within_its_pool(drawn: list[Any], slots: int) -> None:
    rule = FreeSwapRule(POOL, slots, chunk_tokens=256)

    def check(_now_s: float) -> None:
        assert sum(request.computed_tokens for request in rule.running()) <= POOL
        assert len(rule.running()) <= slots

    check_served(run(rule, listed(drawn), check))


def test_free_swap_serves_real_time_as_if_best_effort_were_not_there() -> None:
    rt, be = RequestClass.RT, RequestClass.BE
    work = [(be, 0.0, 600, 100, 0)] * 6
    chats = [(rt, 0.1 + 0.2 * i, 900, 5, 0) for i in range(5)]
    alone = run(FreeSwapRule(POOL, 8), listed(chats))
    beside = run(FreeSwapRule(POOL, 8), listed([*chats, *work]))
    for log, other in zip(
        alone.logs, [log for log in beside.logs if log.request.request_class is rt], strict=True
    ):
        running_step_s = 0.06  # an arrival waits for the step that runs
        assert other.finish_s < log.finish_s + 6 * running_step_s


@settings(max_examples=60, deadline=None)
@given(requests, st.integers(1, 8))
def test_tgi_serves_everyone_and_preempts_nobody(drawn: list[Any], slots: int) -> None:
    rule = TgiRule(POOL, slots)

    def check(_now_s: float) -> None:
        assert rule._free_tokens + sum(rule._reserved(r) for r in rule.running()) == POOL
        assert rule._free_tokens >= 0

    outcome = run(rule, listed(drawn), check)
    check_served(outcome)
    assert all(log.preemptions == 0 for log in outcome.logs)


def burst(cls: RequestClass, count: int, at_s: float, prompt: int, output: int) -> list[Any]:
    return [(cls, at_s, prompt, output, 0)] * count


def test_vllm_priority_lets_rt_pass_be() -> None:
    mixed = burst(RequestClass.BE, 20, 0.0, 500, 100) + burst(RequestClass.RT, 1, 0.5, 100, 10)
    first: dict[bool, float] = {}
    for by_priority in (False, True):
        outcome = run(VllmRule(POOL, 8, by_priority=by_priority), listed(mixed))
        rt = next(log for log in outcome.logs if log.request.request_class is RequestClass.RT)
        first[by_priority] = rt.token_s[0] - rt.arrival_s
    assert first[True] < first[False] / 3


def test_vllm_preempts_the_last_comer_when_the_pool_is_full() -> None:
    outcome = run(VllmRule(POOL, 8, by_priority=False), listed(burst(RequestClass.BE, 4, 0.0, 500, 120)))
    assert [log.preemptions > 0 for log in outcome.logs] == [False, False, False, True]


def test_tgi_waits_for_a_full_batch_of_joiners_but_not_for_ever() -> None:
    """Ten run; one more is fewer than 0.3 × 10, so it joins only after 20 decode steps without a join."""
    workload = listed(burst(RequestClass.BE, 10, 0.0, 10, 100) + burst(RequestClass.RT, 1, 1e-3, 10, 10))
    outcome = run(TgiRule(POOL, 64), workload)
    decoded_before = sum(t < outcome.logs[10].token_s[0] for t in outcome.logs[0].token_s)
    assert decoded_before == 1 + 20


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [([1, 2, 3], [9], [1, 9, 2, 3]), ([], [8, 9], [8, 9]), ([1], [7, 8], [1, 7, 8]), ([], [], [])],
)
def test_round_robin_takes_turns(first: list[int], second: list[int], expected: list[int]) -> None:
    assert alternate(first, second) == expected
