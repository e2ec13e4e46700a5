"""What recorded passes say: the decode step with every seat taken, and the scheduler's share of it."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LEAST_PASSES = 20


class PassesError(ValueError):
    """Recorded passes that say too little; the message says what is missing."""


def read_passes(path: Path) -> list[dict[str, Any]]:
    """Read a recorded file in the order of the passes' ends; a torn last line is left out."""
    if not path.is_file():
        raise PassesError(f"{path}: no passes were recorded")
    passes = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            passes.append(json.loads(line))
        except ValueError:
            break
    return passes


def decode_figures(passes: Sequence[dict[str, Any]], rows: int) -> dict[str, Any]:
    """Return medians over decode steps of at least 95 % of `rows` rows that follow one another.

    A step is the time from the end of the step before to its own. `scheduler_share` is what the scheduler's
    thread did (deciding, launching, processing results) of it: hidden behind the GPU while it is below 1.
    Raises PassesError where such steps were rare.
    """
    steps_s: list[float] = []
    parts: dict[str, list[float]] = {"decide_s": [], "launch_s": [], "process_s": [], "wait_s": []}
    for before, now in pairwise(passes):
        if all(one["decode"] and one["rows"] >= 0.95 * rows for one in (before, now)):
            steps_s.append(now["done_s"] - before["done_s"])
            for part, values in parts.items():
                values.append(now[part])
    if len(steps_s) < LEAST_PASSES:
        raise PassesError(
            f"{len(steps_s)} decode steps of {rows} rows followed one another, {LEAST_PASSES} are needed: "
            "measure longer, or with more requests"
        )
    step_s = statistics.median(steps_s)
    figures = {part.replace("_s", "_us"): 1e6 * statistics.median(v) for part, v in parts.items()}
    busy_us = figures["decide_us"] + figures["launch_us"] + figures["process_us"]
    return {
        "steps": len(steps_s),
        "rows": rows,
        "step_ms": 1e3 * step_s,
        "step_p99_ms": 1e3 * sorted(steps_s)[int(0.99 * (len(steps_s) - 1))],
        **figures,
        "scheduler_share": busy_us / (1e6 * step_s),
    }


def waits_per_pass(passes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how often the scheduler waited for the GPU while it decided, per pass, by kind of pass."""
    kinds = {"decode": [p["waits"] for p in passes if p["decode"]]}
    kinds["prefill_or_mixed"] = [p["waits"] for p in passes if not p["decode"]]
    return {
        kind: {"passes": len(waits), "waits_per_pass": statistics.fmean(waits) if waits else None}
        for kind, waits in kinds.items()
    }
