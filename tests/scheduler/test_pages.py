"""Prompts and chunks that do not fill a page."""

from __future__ import annotations

import pytest

from bros_sglang.request_class import RequestClass
from tests.scheduler.test_books_balance import all_ended
from tests.scheduler.watched_replay import NO_HEADROOM, Draw, Watch, watch

pytestmark = pytest.mark.server  # builds SGLang's scheduler

RT, BE = RequestClass.RT, RequestClass.BE


@pytest.mark.parametrize("page_size", [16, pytest.param(64, marks=pytest.mark.slow)])
def test_prompts_shorter_than_a_page(page_size: int) -> None:
    draws = (
        Draw(RT, 12, 20, (1, 15), (1, 40), limit=40),
        Draw(BE, 12, 20, (1, 15), (1, 40), limit=40),
    )
    all_ended(watch(Watch(draws, page_size=page_size)), 24)


def test_a_last_chunk_shorter_than_a_page_runs_beside_others() -> None:
    """Prompts of 260 leave 4 tokens after two chunks of 128; best-effort rows decode all the while."""
    draws = (
        Draw(BE, 3, 1000, (20, 20), (400, 400), limit=400),
        Draw(RT, 4, 4, (260, 260), (2, 2), limit=2),
    )
    seen = watch(Watch(draws, page_size=16, flags=NO_HEADROOM))
    all_ended(seen, 7)
    first_be = min(finish for rid, finish in seen.finished_s.items() if rid.startswith(BE))
    assert all(finish < first_be for rid, finish in seen.finished_s.items() if rid.startswith(RT))
