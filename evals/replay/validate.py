"""A live server against its replay: the same requests, the same settings, the same metrics.

The server runs on this machine with its passes recorded. A range of loads comes first, and the step-time
model is fitted to that; then the workloads are measured. The replay sees the model, never the measured runs.
A second replay with a model fitted to the passes of each measured run tells errors of the step-time model
from errors of the replay itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.live import probe
from bros_sglang.evals.live.campaign import measure_url
from bros_sglang.evals.live.dialect import BE_PRIORITY, RT_PRIORITY
from bros_sglang.evals.live.load import LoadPlan
from bros_sglang.evals.live.policy_flags import POLICIES as LIVE_POLICIES
from bros_sglang.evals.live.server_process import ServerProcess
from bros_sglang.evals.live.sglang_command import TINY_ENV, TINY_FLAGS
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.metrics.rounds import median_result
from bros_sglang.evals.metrics.run import Run
from bros_sglang.evals.replay.arrivals import Tagging
from bros_sglang.evals.replay.job import ReplayFailedError, ReplayJob
from bros_sglang.evals.replay.policies import PolicySpec
from bros_sglang.evals.replay.processes import run_jobs
from bros_sglang.evals.step_time.fit import OUTLIER_FACTOR, durations, fit_steps
from bros_sglang.evals.step_time.profile import fitted, load_in_phases, recording_command
from bros_sglang.evals.step_time.record import read_steps
from bros_sglang.evals.step_time.recording_server import RECORD_ENV
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.step_time.linear import LinearStepTime
    from bros_sglang.evals.step_time.record import RecordedStep

PROFILE_S = 64.0
WARMUP_S = 5.0
TOLERANCE = 0.15
# What is compared, and where it stands in a result.
FIGURES: dict[str, tuple[str, ...]] = {
    "RT TTFT p50 ms": ("rt", "ttft_ms", "p50"),
    "RT TTFT p99 ms": ("rt", "ttft_ms", "p99"),
    "RT TPOT p50 ms": ("rt", "tpot_ms", "p50"),
    "RT TPOT p99 ms": ("rt", "tpot_ms", "p99"),
    "BE tokens/s": ("be", "tokens_per_s"),
}


@dataclass(frozen=True, slots=True)
class ValidationLoad:
    """One workload of the comparison, in specs."""

    name: str
    rt: str
    be: str


LOADS = (
    ValidationLoad(
        "steady",
        "uniform:prompt=32-256,output=8-48,rate=4",
        "uniform:prompt=128-512,output=16-64,outstanding=24",
    ),
    ValidationLoad(
        "waves",
        "synthetic:scale=8,max_context=1024,arrivals=waves,rate=8,low=1,period=10",
        "uniform:prompt=64-384,output=8-32,outstanding=16,prefix=128",
    ),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One policy under one load, live and replayed; the records are for the picture."""

    policy: str
    load: ValidationLoad
    live: dict[str, Any]
    replay: dict[str, Any]
    replay_own_steps: dict[str, Any]  # replayed with a model fitted to the measured run's own passes
    stalled_share: float  # of the measured time, in passes that took over four times what the model says
    live_records: Sequence[RequestRecord]
    replay_records: Sequence[RequestRecord]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per figure."""
        rows = []
        for name, path in FIGURES.items():
            live, replayed, own = (
                _at(result, path) for result in (self.live, self.replay, self.replay_own_steps)
            )
            ratio = replayed / live if live and replayed is not None else None
            rows.append(
                {
                    "load": self.load.name,
                    "policy": self.policy,
                    "figure": name,
                    "live": live,
                    "replay": replayed,
                    "ratio": ratio,
                    "within": ratio is not None and abs(ratio - 1.0) <= TOLERANCE,
                    "ratio_own_steps": own / live if live and own is not None else None,
                }
            )
        return rows


def _at(result: dict[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = result
    for key in path:
        value = value[key]
    return None if value is None else float(value)


def _plan(load: ValidationLoad, seconds: float) -> LoadPlan:
    end_s = WARMUP_S + seconds
    rt = parse_workload(
        load.rt, RequestClass.RT, seconds=end_s, ttft_ms=150.0, tpot_ms=30.0, exact_limit=True
    )
    be = parse_workload(load.be, RequestClass.BE, exact_limit=True)
    return LoadPlan(rt, be, seconds, WARMUP_S)


def validate_policy(
    policy_name: str,
    tiny_model: Path,
    folder: Path,
    *,
    loads: Sequence[ValidationLoad] = LOADS,
    seconds: float,
    rounds: int,
    on_phase: Callable[[str], None],
) -> list[Comparison]:
    """Measure one policy under each load, `rounds` times, and replay the same.

    Raises:
        LiveError: the server does not start or stops answering.
        ReplayFailedError: a replay did not finish.
    """
    policy = LIVE_POLICIES[policy_name]
    arguments = ["--model-path", str(tiny_model), *TINY_FLAGS, *policy.flags]
    steps_file = folder / f"steps-{policy_name}.jsonl"
    env = {**TINY_ENV, RECORD_ENV: str(steps_file)}
    outcomes = []
    on_phase(f"{policy_name}: starting the server")
    with ServerProcess(recording_command(arguments), folder / f"server-{policy_name}.log", env=env) as server:
        idle = load_in_phases(
            server.url, PROFILE_S, lambda phase: on_phase(f"{policy_name}: profile, {phase}")
        )
        profile = fitted(read_steps(steps_file), idle, arguments)
        dialect = probe.identify(server.url)
        for number in range(rounds):
            for load in loads:
                on_phase(f"{policy_name}: {load.name}, round {number + 1} of {rounds}")
                before = len(read_steps(steps_file))
                outcome = measure_url(server.url, dialect, _plan(load, seconds), policy, number)
                outcomes.append((load, outcome, before))
        recorded = read_steps(steps_file)
    profile.model.save(folder / f"step-time-{policy_name}.json")
    comparisons = []
    for load in loads:
        mine = [(outcome, before) for other, outcome, before in outcomes if other is load]
        on_phase(f"{policy_name}: replaying {load.name}")
        ends = [before for _, _, before in outcomes] + [len(recorded)]
        own_steps = [
            step for _, before in mine for step in recorded[before : min(e for e in ends if e > before)]
        ]
        own, _ = fit_steps(own_steps, "own passes", blocking=profile.model.blocking)
        own.frontend_s = profile.model.frontend_s
        replayed, own_replayed = (
            _replayed(policy_name, policy.flags, load, seconds, model, folder)
            for model in (profile.model, own)
        )
        comparisons.append(
            Comparison(
                policy_name,
                load,
                median_result([outcome.result for outcome, _ in mine]),
                compute_result(replayed),
                compute_result(own_replayed),
                stalled_share(own_steps, profile.model),
                mine[0][0].run.rt,
                replayed.rt,
            )
        )
    return comparisons


def stalled_share(steps: Sequence[RecordedStep], model: LinearStepTime) -> float:
    """Return the share of time in passes that the machine held up: above a few percent, it is not quiet."""
    passes = durations(steps, blocking=model.blocking)
    total_s = sum(seconds for _, seconds in passes)
    stalled_s = sum(seconds for step, seconds in passes if seconds > OUTLIER_FACTOR * model.step_s(step))
    return stalled_s / total_s if total_s else 0.0


def _replayed(
    policy_name: str,
    policy_flags: Sequence[str],
    load: ValidationLoad,
    seconds: float,
    model: LinearStepTime,
    folder: Path,
) -> Run:
    flags = arguments_as_flags([*TINY_FLAGS, *policy_flags])
    plan = _plan(load, seconds)
    job = ReplayJob(
        label=f"{policy_name}-{load.name}",
        policy=PolicySpec(
            policy_name,
            "as the live server was started",
            flags=flags,
            tagging=Tagging(bros_tag=True, rt_priority=RT_PRIORITY, be_priority=BE_PRIORITY),
        ),
        rt=plan.rt,
        be=plan.be,
        step_time=model,
        pool_tokens=int(flags.pop("max-total-tokens")),
        max_running_requests=int(flags.pop("max-running-requests")),
        context_length=4096,
        page_size=1,
        seconds=plan.end_s,
        drain_s=plan.grace_s,
        cpu_s_per_pass=0.0,
        frontend_s=model.frontend_s,
        measure_from_s=plan.warmup_s,
    )
    (result,) = run_jobs([job], folder)
    if isinstance(result, ReplayFailedError):
        raise result
    return Run(result.records, result.facts)


def arguments_as_flags(arguments: Sequence[str]) -> dict[str, Any]:
    """Return `["--page-size", "16", "--mixed"]` as `{"page-size": "16", "mixed": True}`."""
    flags: dict[str, Any] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.removeprefix("--").partition("=")
            flags[name] = value if equals else True
        else:
            flags[name] = argument
    return flags
