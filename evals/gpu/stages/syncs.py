"""Stage syncs: does bros make the host wait for the GPU where stock does not? Counted per pass, in two ways.

By torch's profiler over a stretch of mixed load, and by torch's sync debug mode while the scheduler decides.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.loads import measured, mixed_plan
from bros_sglang.evals.gpu.passes import read_passes, waits_per_pass
from bros_sglang.evals.gpu.profiler_trace import count_waits
from bros_sglang.evals.gpu.stages.overhead import timed_server
from bros_sglang.evals.live.errors import LiveError

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.evals.gpu.run import GpuRun
    from bros_sglang.evals.live.load import LoadState

NEEDS = (("start", "stock"),)
PASSES = 40
TRACE_TIMEOUT_S = 90.0


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell per policy; stock with mixed chunks too, since bros mixes."""
    seconds = max(4.0, run.scale.seconds / 4)
    estimate_s = run.scale.start_s + seconds + 60.0

    def measure(policy: str) -> dict[str, Any]:
        record = run.folder("passes") / f"syncs-{policy}.jsonl"
        record.unlink(missing_ok=True)
        traces = run.folder("traces", policy)
        for old in traces.glob("*.trace.json.gz"):
            old.unlink()
        server = timed_server(run, run.arguments(policy), f"syncs-{policy}", record, count_waits=True)
        profiler = _Profiler(server.url, traces, gpu=not run.scale.on_cpu, after_s=seconds / 3)
        plan = mixed_plan(run.scale, run.scale.rates[-1], seconds=seconds)
        measured(run, policy, server.url, plan, f"syncs-{policy}", profiler.tick)
        trace = _finished_trace(traces)
        run.close()
        figures = count_waits(trace, PASSES)
        trace.unlink()  # large, and counted
        return {"profiler": figures, "deciding": waits_per_pass(read_passes(record))}

    return [
        Cell("syncs", policy, estimate_s, partial(measure, policy), NEEDS)
        for policy in ("fcfs", "priority-mixed", "bros")
    ]


class _Profiler:
    """Turns a server's profiler on once, while a load runs."""

    def __init__(self, url: str, folder: Path, *, gpu: bool, after_s: float) -> None:
        self._url = url
        self._after_s = after_s
        self._started = False
        self._request = {
            "output_dir": str(folder),
            "num_steps": PASSES,
            "activities": ["CPU", "GPU"] if gpu else ["CPU"],
            "with_stack": False,
            "record_shapes": False,
        }

    def tick(self, state: LoadState) -> None:
        """Start it, beside the client's loop, when it is time."""
        if not self._started and state.elapsed_s >= self._after_s:
            self._started = True
            threading.Thread(target=self._start, daemon=True).start()

    def _start(self) -> None:
        httpx.post(f"{self._url}/start_profile", json=self._request, timeout=120.0, trust_env=False)


def _finished_trace(folder: Path) -> Path:
    """Wait until the server has written its trace. Raises LiveError where it does not."""
    give_up_s = time.monotonic() + TRACE_TIMEOUT_S
    size = -1
    while time.monotonic() < give_up_s:
        found = sorted(folder.glob("*.trace.json.gz"))
        if found:
            now = found[0].stat().st_size
            if now > 0 and now == size:
                return found[0]
            size = now
        time.sleep(1.0)
    raise LiveError(f"the server's profiler wrote no trace to {folder} in {TRACE_TIMEOUT_S:.0f} s")
