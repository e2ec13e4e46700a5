from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.policies.plan import Bound, Limits, RtPrefill, View, plan_step
from bros_sglang.policies.step_time import Coefficients, StepTimeModel

LIMITS = Limits(chunk_tokens=2048, arrival_guard_s=0.1, margin_bands=0.0, fixed_margin_s=0.0)
# 5 ms a step, 30 µs a prefill token, 10 µs a decode row.
MODEL = StepTimeModel(Coefficients(5e-3, 3e-5, 0.0, 1e-5, 0.0, 0.0))
IDLE = View(
    start_s=100.0,
    rt_prefills=(),
    rt_rows=0,
    rt_context=0,
    rt_next_due_s=math.inf,
    rt_tightest_tpot_s=math.inf,
    be_rows=0,
    be_context=0,
    be_prefill_tokens=0,
)


def test_without_real_time_best_effort_takes_the_whole_chunk() -> None:
    plan = plan_step(replace(IDLE, be_rows=50, be_context=5000, be_prefill_tokens=10_000), MODEL, LIMITS)
    assert plan.be_prefill_tokens == 2048
    assert plan.be_rows == 50


def test_decode_rows_never_take_the_whole_time_that_arrivals_leave() -> None:
    view = replace(IDLE, be_rows=500, be_context=5000, be_prefill_tokens=10_000)
    plan = plan_step(view, MODEL, replace(LIMITS, arrival_guard_s=0.004))
    assert plan.be_rows == 500
    # 10 ms of rows leave 5 ms: 166 tokens.
    assert 160 <= plan.be_prefill_tokens <= 167


def test_a_next_token_deadline_limits_what_is_lent() -> None:
    view = replace(
        IDLE,
        rt_rows=10,
        rt_context=1000,
        rt_next_due_s=100.035,
        rt_tightest_tpot_s=0.05,
        be_prefill_tokens=10_000,
    )
    plan = plan_step(view, MODEL, LIMITS)
    assert plan.bound is Bound.TPOT
    # 35 ms less 5 ms fixed and 0.1 ms of rows leave 29.9 ms: 996 tokens.
    assert 990 <= plan.be_prefill_tokens <= 997


def test_a_first_token_deadline_limits_what_is_lent() -> None:
    view = replace(IDLE, rt_prefills=[RtPrefill(100.040, 1000, 0)], be_prefill_tokens=10_000)
    plan = plan_step(view, MODEL, LIMITS)
    assert plan.rt_prefill_tokens == 1000
    assert plan.bound is Bound.TTFT
    assert 160 <= plan.be_prefill_tokens <= 167  # 5 ms to spare


def test_a_lost_deadline_lends_nothing() -> None:
    view = replace(
        IDLE, rt_prefills=[RtPrefill(99.0, 1000, 0)], be_prefill_tokens=10_000, be_rows=20, be_context=10
    )
    plan = plan_step(view, MODEL, LIMITS)
    assert plan.lost == (0,)
    assert plan.bound is Bound.OVERLOAD
    assert (plan.be_prefill_tokens, plan.be_rows) == (0, 0)
    assert plan.rt_prefill_tokens == 1000


def test_the_floor_share_keeps_best_effort_moving() -> None:
    view = replace(IDLE, rt_prefills=[RtPrefill(99.0, 1000, 0)], be_prefill_tokens=10_000, be_owed_s=0.006)
    plan = plan_step(view, MODEL, LIMITS)
    assert plan.bound is Bound.FLOOR
    assert 190 <= plan.be_prefill_tokens <= 200


def test_decode_rows_come_before_prefill() -> None:
    view = replace(
        IDLE,
        rt_rows=1,
        rt_context=10,
        rt_next_due_s=100.006,
        rt_tightest_tpot_s=0.05,
        be_rows=200,
        be_context=200,
        be_prefill_tokens=500,
    )
    plan = plan_step(view, MODEL, LIMITS)
    assert 95 <= plan.be_rows <= 100  # 1 ms at 10 µs a row
    assert plan.be_prefill_tokens == 0


def test_late_decodes_do_not_stop_real_time_prefill() -> None:
    view = replace(
        IDLE,
        rt_prefills=[RtPrefill(101.0, 4000, 0)],
        rt_rows=5,
        rt_context=50,
        rt_next_due_s=90.0,
        rt_tightest_tpot_s=0.02,
    )
    plan = plan_step(view, MODEL, LIMITS)
    assert plan.rt_prefill_tokens >= LIMITS.min_rt_chunk_tokens


views = st.builds(
    View,
    start_s=st.just(100.0),
    rt_prefills=st.lists(
        st.builds(RtPrefill, st.floats(90, 110), st.integers(1, 20_000), st.integers(0, 20_000)), max_size=8
    ).map(lambda items: sorted(items, key=lambda item: item.due_s)),
    rt_rows=st.integers(0, 200),
    rt_context=st.integers(0, 100_000),
    rt_next_due_s=st.floats(99, 101),
    rt_tightest_tpot_s=st.floats(0.001, 0.2),
    be_rows=st.integers(0, 200),
    be_context=st.integers(0, 100_000),
    be_prefill_tokens=st.integers(0, 100_000),
    be_prefix_tokens=st.integers(0, 10_000),
    be_owed_s=st.floats(0, 0.05),
)


@given(views)
def test_any_plan_stays_within_the_engine_and_never_asks_for_what_is_not_there(view: View) -> None:
    plan = plan_step(view, MODEL, LIMITS)
    assert 0 <= plan.be_rows <= view.be_rows
    assert 0 <= plan.be_prefill_tokens <= view.be_prefill_tokens
    assert 0 <= plan.rt_prefill_tokens <= sum(item.tokens for item in view.rt_prefills)
    assert plan.rt_prefill_tokens + plan.be_prefill_tokens <= LIMITS.chunk_tokens
    assert (plan.rt_prefill_tokens > 0) == bool(view.rt_prefills)


@given(views)
def test_what_is_lent_beyond_the_floor_makes_no_running_request_late(view: View) -> None:
    plan = plan_step(replace(view, be_owed_s=0.0), MODEL, LIMITS)
    lent = plan.be_prefill_tokens > 0 or (plan.be_rows > 0 and (view.rt_rows > 0 or view.rt_prefills))
    if lent and view.rt_rows:
        assert plan.predicted_s <= max(view.rt_next_due_s - view.start_s, 0.0) + 1e-6


@given(
    guard_s=st.floats(0.0, 1.0),
    tokens=st.integers(1, 10_000),
    prefix=st.integers(0, 100_000),
    fixed_s=st.floats(0.0, 0.5),
)
def test_an_idle_engine_never_leaves_best_effort_waiting(
    guard_s: float, tokens: int, prefix: int, fixed_s: float
) -> None:
    # A target that no step can meet (a client may name any) must not stop what is there to do.
    model = StepTimeModel(Coefficients(fixed_s, 3e-5, 5e-10, 1e-5, 0.0, 0.0))
    view = replace(IDLE, be_prefill_tokens=tokens, be_prefix_tokens=prefix)
    plan = plan_step(view, model, replace(LIMITS, arrival_guard_s=guard_s))
    assert 0 < plan.be_prefill_tokens <= min(tokens, LIMITS.chunk_tokens)
