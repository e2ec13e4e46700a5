"""Run cells in order: what is done is skipped, what no longer fits the budget waits for the next command."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.budget import Budget, BudgetSpentError, ends_with
from bros_sglang.evals.gpu.cell import Cell, CellRecord, SkipCellError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bros_sglang.evals.gpu.cell import Status
    from bros_sglang.evals.gpu.store import CellStore

MOST_ATTEMPTS = 2  # a cell that failed so often is left alone: a lent machine's minutes are better spent
MOST_REASON = 6000  # characters of it that are shown; all of it is in the record


class Summary:
    """What one command did."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(
            ("done", "failed", "skipped", "unfinished", "kept", "left", "waiting", "blocked"), 0
        )
        self.complete = False  # nothing is left to do

    def line(self) -> str:
        """Return the counts as a sentence."""
        said = {
            "done": "done now",
            "kept": "done before",
            "skipped": "skipped",
            "failed": "failed",
            "unfinished": "cut off",
            "left": "left for the next command",
            "waiting": "wait for others that are not done",
            "blocked": "need others that failed",
        }
        return ", ".join(f"{self.counts[key]} {text}" for key, text in said.items() if self.counts[key])


def is_settled(record: CellRecord | None, *, retry: bool) -> bool:
    """Tell whether a cell need not be tried again: done, skipped for good, or failed too often."""
    if record is None or record.status == "unfinished":
        return False
    if record.status == "done":
        return True
    return not retry and (record.status == "skipped" or record.attempts >= MOST_ATTEMPTS)


def run_cells(
    cells: Sequence[Cell],
    store: CellStore,
    budget: Budget,
    *,
    say: Callable[[str], None],
    device_facts: Callable[[], dict[str, Any]],
    on_change: Callable[[], None] = lambda: None,
    retry: bool = False,
) -> Summary:
    """Run what is not settled, in order, while the budget lasts; record each cell as it ends.

    A cell whose estimate no longer fits is left, and shorter ones behind it are tried; one that needs another
    that is not done waits. `on_change` is called
    after every record, so that a kill loses one cell at most.
    """
    summary = Summary()
    running = ""
    for index, cell in enumerate(cells):
        before = store.get(cell.stage, cell.name)
        if is_settled(before, retry=retry):
            summary.counts["kept"] += 1
            continue
        where = f"[{index + 1}/{len(cells)}] {cell.key}"
        lacking = [need for need in cell.needs if store.result(*need) is None]
        if lacking:
            # What failed too often will not be tried again by itself: then there is nothing to wait for.
            hopeless = any(is_settled(store.get(*need), retry=retry) for need in lacking)
            summary.counts["blocked" if hopeless else "waiting"] += 1
            say(f"{where}: needs {', '.join(map('/'.join, lacking))}")
            continue
        estimate_s = cell.estimate_s + (cell.start_s if not running or cell.server != running else 0.0)
        if not budget.allows(estimate_s):
            summary.counts["left"] += 1
            say(f"{where}: left, it takes about {estimate_s:.0f} s and {budget.left_s():.0f} s remain")
            continue
        say(f"{where}: about {estimate_s:.0f} s …")
        running = cell.server
        attempts = before.attempts if before is not None and before.status != "unfinished" else 0
        record = _tried(cell, attempts + 1, budget)
        record.device = device_facts()
        store.put(record)
        on_change()
        summary.counts[record.status] += 1
        note = f": {record.reason[:MOST_REASON]}" if record.reason else ""
        say(f"{where}: {record.status} in {record.seconds:.0f} s{note}")
    open_cells = ("left", "unfinished", "waiting")
    summary.complete = not any(summary.counts[key] for key in open_cells)
    return summary


def _tried(cell: Cell, attempt: int, budget: Budget) -> CellRecord:
    started, start_s = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    result: dict[str, Any] = {}
    status: Status
    try:
        with ends_with(budget):
            result = cell.run()
        status, reason = "done", ""
    except BudgetSpentError:
        status, reason = "unfinished", "the budget ended first"
    except SkipCellError as error:
        status, reason = "skipped", str(error)
    except Exception as error:  # noqa: BLE001 (one cell's failure must not cost the others)
        status, reason = "failed", f"{type(error).__name__}: {error}"
    return CellRecord(
        cell.stage,
        cell.name,
        status,
        seconds=round(time.monotonic() - start_s, 2),
        attempts=attempt,
        reason=reason,
        started=started,
        result=result,
    )
