"""What bros's metrics cost per scheduling pass, with and without them side by side.

    python -m bros_sglang.evals.overhead.metrics_cost --out evals/results/metrics-cost

One real scheduler per load, driven as in a replay without a forward pass, in a process of its own. Blocks of
passes with metrics and without alternate on the same state (ABBA), so that whatever else the machine does
falls on both. Timed is the scheduler's loop, `get_next_batch_to_run` and `process_batch_result`, in CPU time
of its thread, which other processes on the machine do not add to. Metrics are what `--enable-metrics` adds of
bros: histograms and the update of counters and gauges once a second, in Prometheus's multi-process files.
What `/bros/status` counts stays on in both.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bros_sglang.evals.overhead.measure import build_loaded, in_own_process

_NOW = time.thread_time  # bound before the replay puts virtual time into the modules
_LABELS = {"model_name": "stub", "engine_type": "unified", "tp_rank": 0, "pp_rank": 0}


@dataclass(frozen=True, slots=True)
class MetricsCost:
    """One load; microseconds of CPU time on this machine, raw block means beside what follows from them."""

    running: int
    waiting: int
    round: int
    passes_per_block: int
    with_us: list[float]  # mean per pass of each block with metrics
    without_us: list[float]  # of the block beside it without
    metrics_us: float  # mean per pass spent in the metrics' own functions, timed directly

    @property
    def ratio(self) -> float:
        """Median over pairs of blocks: with metrics against without."""
        return median(a / b for a, b in zip(self.with_us, self.without_us, strict=True))

    @property
    def direct_share(self) -> float:
        """The metrics' own functions, as a share of a pass without them."""
        return self.metrics_us / median(self.without_us)


class _Blocks:
    """Switches metrics on and off by blocks of passes, and adds up the time of each block."""

    def __init__(self, scheduler: Any, metrics: Any, passes_per_block: int, pairs: int) -> None:
        self._scheduler = scheduler
        self._metrics = metrics
        self._per_block = passes_per_block
        self._order = [on for pair in range(pairs) for on in ((True, False) if pair % 2 else (False, True))]
        self._block = -1
        self._left = 0
        self._sums_s: list[float] = []
        self._own_s = 0.0
        self._on = False
        for name in ("flush_if_due", "first_token", "finished"):
            setattr(metrics, name, self._own(getattr(metrics, name)))

    def _own(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = _NOW()
            result = function(*args, **kwargs)
            self._own_s += _NOW() - started
            return result

        return timed

    def next_pass(self) -> None:
        """Begin the next block where one is full; the first begins when the load is there."""
        if self._left:
            self._left -= 1
            return
        self._block += 1
        if self._block == len(self._order):
            self._scheduler.gracefully_exit = True
            return
        if self._block > len(self._order):
            return
        self._on = self._order[self._block]
        self._scheduler.metrics = self._metrics if self._on else None
        self._scheduler.books.observer = self._metrics if self._on else None
        self._sums_s.append(0.0)
        self._left = self._per_block - 1

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, whose time counts towards the block."""

        def run(*args: Any, **kwargs: Any) -> Any:
            started = _NOW()
            result = function(*args, **kwargs)
            if 0 <= self._block < len(self._order):
                self._sums_s[self._block] += _NOW() - started
            return result

        return run

    def result(self, running: int, waiting: int, number: int) -> MetricsCost:
        """Return what was measured."""
        if self._block < len(self._order):
            raise RuntimeError(f"the load was there for {self._block} blocks of {len(self._order)} alone")
        per_pass = [1e6 * seconds / self._per_block for seconds in self._sums_s]
        on = [us for us, is_on in zip(per_pass, self._order, strict=True) if is_on]
        off = [us for us, is_on in zip(per_pass, self._order, strict=True) if not is_on]
        own_us = 1e6 * self._own_s / (self._per_block * len(on))
        return MetricsCost(running, waiting, number, self._per_block, on, off, own_us)


def _measure(running: int, waiting: int, number: int, passes: int, pairs: int, pipe: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="bros-metrics-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # before prometheus_client is imported
        from bros_sglang.scheduler.metrics import BrosMetrics

        loaded = build_loaded("bros", running, waiting, Path(folder), seconds=1200.0)
        scheduler = loaded.scheduler
        metrics = BrosMetrics(scheduler.books, scheduler.status_reporter, _LABELS)
        scheduler.books.observer = None
        blocks = _Blocks(scheduler, metrics, passes, pairs)
        get_next, process = scheduler.get_next_batch_to_run, scheduler.process_batch_result

        def get_next_batch(*args: Any, **kwargs: Any) -> Any:
            if loaded.is_there():
                blocks.next_pass()
            return blocks.timed(get_next)(*args, **kwargs)

        scheduler.get_next_batch_to_run = get_next_batch
        scheduler.process_batch_result = blocks.timed(process)
        loaded.run()
        pipe.send(blocks.result(running, waiting, number))


def measure_metrics_cost(
    running: int, waiting: int, number: int, passes: int = 100, pairs: int = 20
) -> MetricsCost:
    """Measure in a process of its own. Raises RuntimeError if that process fails."""
    result: MetricsCost = in_own_process(
        f"{running}/{waiting}", _measure, running, waiting, number, passes, pairs
    )
    return result


def main(
    out: Annotated[Path, typer.Option(help="Folder for metrics-cost.json.")] = Path(
        "evals/results/metrics-cost"
    ),
    loads: Annotated[str, typer.Option(help="running/waiting, comma-separated.")] = "256/1000,32/100",
    rounds: Annotated[int, typer.Option(help="Processes per load, interleaved.", min=1)] = 3,
    passes: Annotated[int, typer.Option(help="Passes per block.", min=10)] = 100,
    pairs: Annotated[int, typer.Option(help="Pairs of blocks per process.", min=2)] = 20,
) -> None:
    """Measure the cost of bros's metrics; say what was measured and write it down."""
    console = Console()
    results = []
    for number in range(rounds):
        for load in loads.split(","):
            running, waiting = (int(part) for part in load.split("/"))
            with console.status(f"round {number + 1} of {rounds}: {running} running, {waiting} waiting"):
                results.append(measure_metrics_cost(running, waiting, number, passes, pairs))
    table = Table("running", "waiting", "without, µs", "with, µs", "side by side", "directly, µs", "share")
    for load in loads.split(","):
        running, waiting = (int(part) for part in load.split("/"))
        of_load = [result for result in results if (result.running, result.waiting) == (running, waiting)]
        table.add_row(
            str(running),
            str(waiting),
            f"{median(us for result in of_load for us in result.without_us):,.0f}",
            f"{median(us for result in of_load for us in result.with_us):,.0f}",
            f"{100 * (median(result.ratio for result in of_load) - 1):+.1f} %",
            f"{median(result.metrics_us for result in of_load):.1f}",
            f"{100 * median(result.direct_share for result in of_load):.1f} %",
        )
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "metrics-cost.json"
    rows = [
        {**asdict(result), "ratio": result.ratio, "direct_share": result.direct_share} for result in results
    ]
    command = "python -m bros_sglang.evals.overhead.metrics_cost"
    about = {
        "command": command + f" --loads {loads} --rounds {rounds} --passes {passes} --pairs {pairs}",
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
    }
    file.write_text(json.dumps({"about": about, "results": rows}, indent=1) + "\n")
    console.print(f"written to {file}")


if __name__ == "__main__":
    typer.run(main)
