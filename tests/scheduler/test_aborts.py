"""Requests that are aborted or time out, in whatever state, give back all that they hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bros_sglang.request_class import RequestClass
from bros_sglang.scheduler.retraction import around_decode_retraction_order
from bros_sglang.scheduler.scheduler import BrosScheduler
from tests.scheduler.test_books_balance import HOST_CACHE, MIX, NO_OVERLAP
from tests.scheduler.watched_replay import NO_HEADROOM, STATES, Draw, Watch, watch

pytestmark = pytest.mark.server  # builds SGLang's scheduler

RT, BE = RequestClass.RT, RequestClass.BE


@pytest.mark.parametrize(
    ("page_size", "flags"),
    [
        pytest.param(1, {}, id="pages of 1"),
        pytest.param(1, NO_OVERLAP, id="pages of 1, no overlap", marks=pytest.mark.slow),
        pytest.param(16, {}, id="pages of 16", marks=pytest.mark.slow),
        pytest.param(16, NO_OVERLAP, id="pages of 16, no overlap"),
        pytest.param(16, HOST_CACHE, id="pages of 16, host cache", marks=pytest.mark.slow),
    ],
)
def test_an_aborted_request_gives_everything_back(page_size: int, flags: dict[str, Any]) -> None:
    draws = (*MIX, Draw(BE, 60, 20, (5, 400), (40, 120), limit=120, prefixes=6))
    seen = watch(
        Watch(
            draws,
            page_size=page_size,
            pool_tokens=1536,
            slots=24,
            flags=NO_HEADROOM | flags,
            aborts=STATES,
            abort_share=0.02,
        )
    )
    assert seen.in_flight == []
    assert seen.left_over == {}
    assert seen.aborted["waiting"]
    assert seen.aborted["running"]
    assert seen.aborted["preempted"]
    failed = sum(error is not None for _, error in seen.ended.values())
    # Who was aborted in the step that ended it anyhow has ended well.
    assert 0 < failed <= sum(seen.aborted.values())


def test_one_that_is_mid_chunk_or_parked_gives_everything_back() -> None:
    draws = (*MIX, Draw(BE, 40, 20, (200, 400), (20, 60), limit=60))
    aborts = ("mid-chunk", "parked")
    seen = watch(Watch(draws, pool_tokens=1536, slots=24, flags=NO_HEADROOM, aborts=aborts, abort_share=0.2))
    assert seen.in_flight == []
    assert seen.left_over == {}
    assert seen.aborted["mid-chunk"]
    assert seen.aborted["parked"]


def test_time_outs_give_everything_back() -> None:
    environment = {"SGLANG_REQ_WAITING_TIMEOUT": "1.5", "SGLANG_REQ_RUNNING_TIMEOUT": "1.0"}
    seen = watch(Watch(MIX, pool_tokens=1536, slots=24, flags=NO_HEADROOM, environment=environment))
    assert seen.in_flight == []
    assert seen.left_over == {}
    errors = [error for _, error in seen.ended.values() if error]
    assert any("waiting timeout" in error for error in errors)
    assert any("running timeout" in error for error in errors)


def row(rid: str, request_class: RequestClass, *, next_due_s: float = 0.0, aborted: bool = False) -> Any:
    return SimpleNamespace(
        rid=rid,
        bros=SimpleNamespace(is_rt=request_class is RT, next_due_s=next_due_s),
        to_finish="aborted" if aborted else None,
        beam_group=None,
        finished=lambda: False,
    )


def test_who_was_aborted_is_not_preempted_before_its_last_step() -> None:
    rows = [row("a", BE), row("b", BE, aborted=True), row("c", RT)]
    scheduler = SimpleNamespace(_reqs_finishing_inflight=lambda _: [])
    batch = SimpleNamespace(reqs=rows)
    assert [req.rid for req in BrosScheduler._preemptible(scheduler, batch)] == ["a"]
    assert [req.rid for req in BrosScheduler._preemptible(scheduler, batch, rt=True)] == ["c"]


def test_retraction_takes_best_effort_first_then_the_most_slack() -> None:
    rows = [
        row("slack", RT, next_due_s=9.0),
        row("be", BE),
        row("tight", RT, next_due_s=1.0),
        row("aborted", RT, aborted=True, next_due_s=5.0),
    ]
    kept = around_decode_retraction_order(lambda reqs: list(range(len(reqs))), rows)
    assert [rows[i].rid for i in kept] == ["aborted", "tight", "slack", "be"]
