"""Profile a server: start it recording, put a range of loads on it, fit a step-time model."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bros_sglang.evals.live import probe
from bros_sglang.evals.live.load import LoadPlan, run_load
from bros_sglang.evals.live.server_process import ServerProcess
from bros_sglang.evals.step_time.fit import fit_steps
from bros_sglang.evals.step_time.record import read_steps
from bros_sglang.evals.step_time.recording_server import RECORD_ENV
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bros_sglang.evals.metrics.run import Run
    from bros_sglang.evals.step_time.fit import FitReport
    from bros_sglang.evals.step_time.linear import LinearStepTime
    from bros_sglang.evals.step_time.record import RecordedStep

IDLE_PROMPT, IDLE_RATE = 64, 5.0
# Steps beside each other: (outstanding requests, share of the longest prompt, output tokens).
PHASES = (
    (1, 0.5, "8-32"),
    (3, 0.5, "8-64"),
    (8, 0.5, "16-64"),
    (16, 0.4, "16-64"),
    (24, 0.25, "16-64"),
    (32, 0.12, "32-96"),
    (6, 1.0, "2-8"),
)


@dataclass(frozen=True, slots=True)
class Profile:
    """A fitted model with what it was fitted to."""

    model: LinearStepTime
    report: FitReport
    recorded: list[RecordedStep]


def recording_command(server_args: Sequence[str]) -> list[str]:
    """Return the command of a server that records its passes."""
    return [sys.executable, "-m", "bros_sglang.evals.step_time.recording_server", *server_args]


def profile_server(
    server_args: Sequence[str],
    folder: Path,
    *,
    seconds: float,
    env: Mapping[str, str],
    on_phase: Callable[[str], None] = lambda _phase: None,
) -> Profile:
    """Start a server, load it for about `seconds` in all, stop it, and fit.

    The steps go to `folder/steps.jsonl`, the server's output to `folder/server-profile.log`.

    Raises:
        LiveError: the server does not start or stops answering.
        FitError: too few steps of a kind were recorded.
    """
    steps_file = folder / "steps.jsonl"
    steps_file.unlink(missing_ok=True)
    on_phase("starting the server")
    recording = {**env, RECORD_ENV: str(steps_file)}
    with ServerProcess(
        recording_command(server_args), folder / "server-profile.log", env=recording
    ) as server:
        idle = load_in_phases(server.url, seconds, on_phase)
    on_phase("fitting")
    recorded = read_steps(steps_file)
    return fitted(recorded, idle, server_args)


def load_in_phases(url: str, seconds: float, on_phase: Callable[[str], None] = lambda _phase: None) -> Run:
    """Put a range of loads on a server for about `seconds` in all; return the run of single requests."""
    dialect = probe.identify(url)
    longest = min((probe.pool_tokens(url) or 8192) // 8, 2048)
    phase_s = seconds / (len(PHASES) + 1)
    on_phase("one request at a time")
    spec = f"uniform:prompt={IDLE_PROMPT}-{IDLE_PROMPT},output=2-2,arrivals=uniform,rate={IDLE_RATE}"
    rt = parse_workload(spec, RequestClass.RT, seconds=phase_s, exact_limit=True)
    idle = run_load(url, dialect, LoadPlan(rt, None, phase_s))
    for outstanding, share, output in PHASES:
        on_phase(f"{outstanding} requests at a time")
        prompt = max(8, int(longest * share))
        spec = f"uniform:prompt={max(4, prompt // 8)}-{prompt},output={output},outstanding={outstanding}"
        be = parse_workload(spec, RequestClass.BE, seed=outstanding, exact_limit=True)
        run_load(url, dialect, LoadPlan(None, be, phase_s))
        probe.settle(url)
    return idle


def fitted(recorded: list[RecordedStep], idle: Run, server_args: Sequence[str]) -> Profile:
    """Fit a model to what a server recorded under `load_in_phases`.

    Raises:
        FitError: too few steps of a kind were recorded.
    """
    model, report = fit_steps(
        recorded,
        f"fitted on {platform.node()}",
        blocking="cpu" in _device_of(server_args),
        provenance={"server_args": list(server_args), "cpus": os.cpu_count(), "machine": platform.machine()},
    )
    model.frontend_s = frontend_seconds(idle, recorded)
    return Profile(model, report, recorded)


def frontend_seconds(idle: Run, recorded: Sequence[RecordedStep]) -> float:
    """Return what lies between the client and the scheduler, both ways, when nothing else is running.

    The median TTFT that the client saw, less the median pass that such a request took.
    """
    seen = [record.ttft_s for record in idle.records if record.ttft_s is not None]
    passes = [
        one.done_s - one.launched_s
        for one in recorded
        if one.after_idle and one.step.prefill_rows == 1 and one.step.prefill_tokens == IDLE_PROMPT
    ]
    if not seen or not passes:
        return 0.0
    return max(0.0, statistics.median(seen) - statistics.median(passes))


def _device_of(server_args: Sequence[str]) -> str:
    for index, argument in enumerate(server_args):
        if argument == "--device" and index + 1 < len(server_args):
            return server_args[index + 1]
        if argument.startswith("--device="):
            return argument.partition("=")[2]
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
