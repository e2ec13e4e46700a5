"""Stage overhead: the decode step with every seat taken, stock and bros, and the scheduler's share of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.loads import full_house_plan, measured
from bros_sglang.evals.gpu.pass_server import COUNT_WAITS_ENV, RECORD_ENV
from bros_sglang.evals.gpu.passes import decode_figures, read_passes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bros_sglang.evals.gpu.run import GpuRun

NEEDS = (("start", "stock"),)


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell per policy."""
    seconds = max(10.0, run.scale.seconds / 2)
    estimate_s = run.scale.start_s + seconds + 15.0

    def measure(policy: str) -> dict[str, Any]:
        record = run.folder("passes") / f"overhead-{policy}.jsonl"
        record.unlink(missing_ok=True)
        server = timed_server(run, run.arguments(policy), f"overhead-{policy}", record)
        result = measured(run, policy, server.url, full_house_plan(run.scale, seconds), f"overhead-{policy}")
        run.close()  # its last lines are on disk then
        figures = decode_figures(read_passes(record), run.scale.running)
        tokens_per_s = sum(result[kind]["output_tokens_per_s"] for kind in ("rt", "be"))
        return {**figures, "output_tokens_per_s": tokens_per_s}

    return [
        Cell("overhead", "fcfs", estimate_s, lambda: measure("fcfs"), NEEDS),
        Cell("overhead", "bros", estimate_s, lambda: measure("bros"), NEEDS),
    ]


def timed_server(
    run: GpuRun, arguments: Sequence[str], log: str, record: Path, *, count_waits: bool = False
) -> Any:
    """Return a running server that records its passes to `record`."""
    command = [sys.executable, "-m", "bros_sglang.evals.gpu.pass_server", *arguments]
    env = {RECORD_ENV: str(record), **({COUNT_WAITS_ENV: "1"} if count_waits else {})}
    return run.server(command, log, env)
