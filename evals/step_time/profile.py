"""Profile a server: start it recording, put a range of loads on it, fit a step-time model."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bros_sglang.evals.live import probe
from bros_sglang.evals.live.dialect import SGLangDialect
from bros_sglang.evals.live.load import LoadPlan, run_load
from bros_sglang.evals.live.server_process import ServerProcess
from bros_sglang.evals.step_time.fit import fit_steps
from bros_sglang.evals.step_time.record import read_steps
from bros_sglang.evals.step_time.recording_server import RECORD_ENV
from bros_sglang.evals.step_time.request_times import measured_frontend, read_request_times
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bros_sglang.evals.metrics.run import Run
    from bros_sglang.evals.step_time.fit import FitReport
    from bros_sglang.evals.step_time.linear import LinearStepTime
    from bros_sglang.evals.step_time.record import RecordedStep
    from bros_sglang.evals.step_time.request_times import RequestTimes

# Loads one after the other: RT requests per second, BE outstanding, share of the longest prompt, output
# tokens. Both classes are there at once in most, as where a model is used: a policy that treats them
# differently has passes of its own for that.
PHASES = (
    (8.0, 0, 0.25, "8-48"),
    (5.0, 3, 0.5, "8-64"),
    (0.0, 8, 0.5, "16-64"),
    (8.0, 16, 0.4, "16-64"),
    (4.0, 24, 0.5, "16-64"),
    (0.0, 32, 0.12, "32-96"),
    (8.0, 16, 0.25, "8-32"),
    (2.0, 6, 1.0, "2-8"),
)
AGE_S = 10.0  # by then every slot of a small pool has changed hands several times


@dataclass(frozen=True, slots=True)
class Profile:
    """A fitted model with what it was fitted to."""

    model: LinearStepTime
    report: FitReport
    recorded: list[RecordedStep]


def recording_command(server_args: Sequence[str]) -> list[str]:
    """Return the command of a server that records its passes."""
    return [sys.executable, "-m", "bros_sglang.evals.step_time.recording_server", *server_args]


class ProfileLoad:
    """The loads of a profile; remembers each run, so that passes and requests can be told from other ones."""

    def __init__(self, url: str, on_phase: Callable[[str], None] = lambda _phase: None) -> None:
        self._url, self._on_phase = url, on_phase
        self._dialect = probe.identify(url)
        self._longest = min((probe.pool_tokens(url) or 8192) // 8, 2048)
        self.runs: list[Run] = []
        self.prefixes: list[str] = []  # of each run's request ids, at the server

    def age(self) -> None:
        """Put load on a fresh server until its pool is as scattered as a server's usually is."""
        self._on_phase("scattering the pool")
        self._load(8.0, 24, 0.5, "8-48", AGE_S, "age-")

    def run(self, seconds: float) -> None:
        """Put every load on the server, for `seconds` in all."""
        for number, (rate, outstanding, share, output) in enumerate(PHASES):
            self._on_phase(f"{rate:g} RT/s beside {outstanding} BE")
            prefix = f"profile-{len(self.runs)}-{number}-"
            self.runs.append(self._load(rate, outstanding, share, output, seconds / len(PHASES), prefix))
            self.prefixes.append(prefix)

    def _load(
        self, rate: float, outstanding: int, share: float, output: str, seconds: float, prefix: str
    ) -> Run:
        longest = max(8, int(self._longest * share))
        lengths = f"uniform:prompt={max(4, longest // 8)}-{longest},output={output}"
        rt = be = None
        if rate:
            spec = f"{lengths},arrivals=uniform,rate={rate}"
            rt = parse_workload(
                spec, RequestClass.RT, seconds=seconds, ttft_ms=150.0, tpot_ms=30.0, exact_limit=True
            )
        if outstanding:
            spec = f"{lengths},outstanding={outstanding}"
            be = parse_workload(spec, RequestClass.BE, seed=outstanding, exact_limit=True)
        dialect = self._dialect
        if isinstance(dialect, SGLangDialect):
            dialect = replace(dialect, rid_prefix=prefix)
        run = run_load(self._url, dialect, LoadPlan(rt, be, seconds, grace_s=0.5))
        probe.drain(self._url)
        return run

    def passes(self, recorded: Sequence[RecordedStep]) -> list[RecordedStep]:
        """Return the passes that ran while these loads were on the server."""
        spans = [
            (run.facts.clock_zero_s, run.facts.clock_zero_s + (run.facts.wall_s or 0.0))
            for run in self.runs
            if run.facts.clock_zero_s is not None
        ]
        return [step for step in recorded if any(a <= step.launched_s < b for a, b in spans)]


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
        load = ProfileLoad(server.url, on_phase)
        load.age()
        load.run(seconds)
    on_phase("fitting")
    return fitted(read_steps(steps_file), load, read_request_times(steps_file), server_args)


def fitted(
    recorded: list[RecordedStep],
    load: ProfileLoad,
    times: dict[str, RequestTimes],
    server_args: Sequence[str],
) -> Profile:
    """Fit a model to what a server recorded under the loads of a profile.

    Raises:
        FitError: too few steps of a kind were recorded.
    """
    passes = load.passes(recorded)
    model, report = fit_steps(
        passes,
        f"fitted on {platform.node()}",
        blocking="cpu" in _device_of(server_args),
        provenance={"server_args": list(server_args), "cpus": os.cpu_count(), "machine": platform.machine()},
    )
    model.frontend = measured_frontend(load.runs, times, load.prefixes)
    return Profile(model, report, passes)


def _device_of(server_args: Sequence[str]) -> str:
    for index, argument in enumerate(server_args):
        if argument == "--device" and index + 1 < len(server_args):
            return server_args[index + 1]
        if argument.startswith("--device="):
            return argument.partition("=")[2]
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
