"""Cells: skipped when they are done, tried again when they failed, left when they no longer fit."""

from pathlib import Path
from typing import Any

import pytest

from bros_sglang.evals.gpu.budget import STOP_S, Budget
from bros_sglang.evals.gpu.cell import Cell, CellRecord, SkipCellError
from bros_sglang.evals.gpu.runner import MOST_ATTEMPTS, Summary, run_cells
from bros_sglang.evals.gpu.store import CellStore, StoreError, read_results


@pytest.fixture
def store(tmp_path: Path) -> CellStore:
    return CellStore(tmp_path)


class Work:
    """Counts how often a cell ran."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.runs = 0

    def __call__(self) -> dict[str, Any]:
        self.runs += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return dict(outcome)


def run(cells: list[Cell], store: CellStore, budget: Budget | None = None, **options: Any) -> Summary:
    said: list[str] = []
    return run_cells(
        cells,
        store,
        budget or Budget(None),
        say=said.append,
        device_facts=lambda: {"gpus": [{"name": "test"}]},
        **options,
    )


def test_a_finished_cell_is_never_measured_again(store: CellStore) -> None:
    work = Work({"figure": 1})
    cells = [Cell("stage", "cell", 1.0, work)]
    assert run(cells, store).complete
    again = run(cells, store)
    assert work.runs == 1
    assert again.counts["kept"] == 1
    assert again.complete
    record = store.get("stage", "cell")
    assert record is not None
    assert record.result == {"figure": 1}
    assert record.device == {"gpus": [{"name": "test"}]}


def test_a_failure_costs_its_own_cell_and_is_tried_so_often(store: CellStore) -> None:
    bad, good = Work(RuntimeError("no GPU\nat all")), Work({})
    cells = [Cell("stage", "bad", 1.0, bad), Cell("stage", "good", 1.0, good)]
    for _ in range(MOST_ATTEMPTS + 2):
        run(cells, store)
    assert (bad.runs, good.runs) == (MOST_ATTEMPTS, 1)
    record = store.get("stage", "bad")
    assert record is not None
    assert record.status == "failed"
    assert record.reason == "RuntimeError: no GPU\nat all"
    run(cells, store, retry=True)
    assert (bad.runs, good.runs) == (MOST_ATTEMPTS + 1, 1)


def test_a_cell_that_cannot_be_measured_here_is_skipped_for_good(store: CellStore) -> None:
    work = Work(SkipCellError("flashinfer is not installed"))
    cells = [Cell("stage", "cell", 1.0, work)]
    assert run(cells, store).complete
    assert run(cells, store).counts["kept"] == 1
    assert work.runs == 1


def test_what_does_not_fit_is_left_and_shorter_cells_behind_it_run(store: CellStore) -> None:
    long, short = Work({}), Work({})
    cells = [Cell("stage", "long", 500.0, long), Cell("stage", "short", 1.0, short)]
    summary = run(cells, store, Budget(STOP_S + 100.0))
    assert (long.runs, short.runs) == (0, 1)
    assert not summary.complete
    assert "1 left for the next command" in summary.line()
    assert run(cells, store).complete
    assert (long.runs, short.runs) == (1, 1)


def test_a_server_that_no_cell_before_left_running_counts_too(store: CellStore) -> None:
    def cell(name: str, server: str) -> Cell:
        return Cell("load", name, 10.0, Work({}), server=server, start_s=100.0)

    cells = [cell("a", "fcfs"), cell("b", "fcfs"), cell("c", "bros")]
    frozen = Budget(STOP_S + 50.0, lambda: 0.0)
    assert run(cells, store, frozen).counts["left"] == 3
    enough = Budget(STOP_S + 115.0, lambda: 0.0)
    summary = run(cells, store, enough)
    assert summary.counts["done"] == 3  # a and c bring a server each; b finds one
    store.path("load", "b").unlink()
    assert run(cells, store, frozen).counts["left"] == 1  # b alone has to start one


def test_a_cell_that_the_budget_cuts_off_runs_again(store: CellStore) -> None:
    runs = []

    def work() -> dict[str, Any]:
        runs.append(1)
        while len(runs) == 1:
            pass
        return {"figure": 2}

    cells = [Cell("stage", "cell", 0.0, work)]
    summary = run(cells, store, Budget(STOP_S + 0.05))
    assert summary.counts["unfinished"] == 1
    assert not summary.complete
    assert run(cells, store).complete
    assert store.result("stage", "cell") == {"figure": 2}
    record = store.get("stage", "cell")
    assert record is not None
    assert record.attempts == 1  # being cut off is no failure of the cell


def test_a_cell_waits_for_what_it_needs(store: CellStore) -> None:
    first, second = Work(RuntimeError("not yet"), {}), Work({})
    needs = (("start", "stock"),)
    cells = [Cell("start", "stock", 1.0, first), Cell("load", "bros", 1.0, second, needs)]
    summary = run(cells, store)
    assert second.runs == 0
    assert summary.counts["waiting"] == 1
    assert not summary.complete
    assert store.get("load", "bros") is None
    assert run(cells, store).complete
    assert second.runs == 1


def test_what_needs_a_cell_that_failed_for_good_is_no_reason_to_run_again(store: CellStore) -> None:
    cells = [
        Cell("start", "stock", 1.0, Work(RuntimeError("no GPU"))),
        Cell("load", "bros", 1.0, Work({}), (("start", "stock"),)),
    ]
    assert not run(cells, store).complete
    for _ in range(MOST_ATTEMPTS):
        summary = run(cells, store)
    assert summary.complete
    assert summary.counts["blocked"] == 1


def test_an_interruption_goes_through_and_leaves_the_others(store: CellStore) -> None:
    cells = [Cell("stage", "done", 1.0, Work({})), Cell("stage", "cut", 1.0, Work(KeyboardInterrupt()))]
    with pytest.raises(KeyboardInterrupt):
        run(cells, store)
    assert store.get("stage", "done") is not None
    assert store.get("stage", "cut") is None


def test_results_are_written_after_every_cell(store: CellStore) -> None:
    seen = []

    def keep() -> None:
        store.write_results({"scale": "test"})
        seen.append(len(read_results(store.out)[1]))

    run([Cell("stage", name, 1.0, Work({})) for name in "abc"], store, on_change=keep)
    assert seen == [1, 2, 3]
    about, records = read_results(store.out)
    assert about == {"scale": "test"}
    assert [record.cell for record in records] == ["a", "b", "c"]


def test_a_record_that_was_half_written_is_named(store: CellStore) -> None:
    store.put(CellRecord("stage", "cell", "done"))
    store.path("stage", "cell").write_text("{", encoding="utf-8")
    with pytest.raises(StoreError, match=r"cell\.json: not a cell's record"):
        store.get("stage", "cell")


@pytest.mark.parametrize("text", ["", "[]", '{"about": {}}', '{"about": {}, "cells": [{"nothing": 1}]}'])
def test_results_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(StoreError, match="no results of a GPU run"):
        read_results(tmp_path)


def test_results_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        read_results(tmp_path)
