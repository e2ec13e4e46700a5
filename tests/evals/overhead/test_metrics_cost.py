"""Blocks with and without metrics: equally many, in turns, each with its own sum."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bros_sglang.evals.overhead.metrics_cost import MetricsCost, _Blocks


def test_blocks_take_turns_and_end_the_run() -> None:
    metrics = SimpleNamespace(flush_if_due=lambda: None, first_token=lambda: None, finished=lambda: None)
    scheduler: Any = SimpleNamespace(
        metrics=None, books=SimpleNamespace(observer=None), gracefully_exit=False
    )
    blocks = _Blocks(scheduler, metrics, passes_per_block=3, pairs=2)
    seen = []
    step = blocks.timed(lambda: seen.append(scheduler.metrics is not None))
    while not scheduler.gracefully_exit:
        blocks.next_pass()
        if not scheduler.gracefully_exit:
            step()
            assert (scheduler.metrics is None) == (scheduler.books.observer is None)
    assert seen == [False] * 3 + [True] * 6 + [False] * 3
    result = blocks.result(1, 0, 0)
    assert len(result.with_us) == len(result.without_us) == 2


def test_a_load_that_went_away_is_an_error() -> None:
    metrics = SimpleNamespace(flush_if_due=lambda: None, first_token=lambda: None, finished=lambda: None)
    scheduler: Any = SimpleNamespace(metrics=None, books=SimpleNamespace(observer=None))
    blocks = _Blocks(scheduler, metrics, passes_per_block=3, pairs=2)
    blocks.next_pass()
    with pytest.raises(RuntimeError, match="0 blocks of 4"):
        blocks.result(1, 0, 0)


def test_pairs_are_compared_with_each_other() -> None:
    result = MetricsCost(1, 0, 0, 10, [103.0, 204.0, 1000.0], [100.0, 200.0, 100.0], 4.0)
    assert result.ratio == pytest.approx(1.03)
    assert result.direct_share == pytest.approx(0.04)
