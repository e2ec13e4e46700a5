"""A live server against its replay: the same requests, the same settings, the same metrics.

The server runs on this machine with its passes and its requests' ways recorded. Between the measured rounds a
range of loads of both classes is put on it, and the step-time model, its spread and the ways between client
and scheduler are taken from those alone: the replay never sees a measured round. A second replay with a model
fitted to the measured rounds' own passes tells errors of the profile from errors of the replay.

The server's cache is never flushed: a flush puts the KV pool in order, and on a CPU a decode step over slots
in order takes three quarters of one over scattered slots. Prompts differ from round to round instead.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.live import probe
from bros_sglang.evals.live.dialect import BE_PRIORITY, RT_PRIORITY, SGLangDialect
from bros_sglang.evals.live.load import LoadPlan, run_load
from bros_sglang.evals.live.policy_flags import POLICIES as LIVE_POLICIES
from bros_sglang.evals.live.server_process import ServerProcess
from bros_sglang.evals.live.sglang_command import TINY_ENV, TINY_FLAGS
from bros_sglang.evals.metrics.distribution import distribution_ms
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.metrics.run import Run
from bros_sglang.evals.replay.arrivals import Tagging
from bros_sglang.evals.replay.job import ReplayFailedError, ReplayJob
from bros_sglang.evals.replay.policies import PolicySpec
from bros_sglang.evals.replay.processes import run_jobs
from bros_sglang.evals.step_time.fit import OUTLIER_FACTOR, FitError, durations, fit_steps
from bros_sglang.evals.step_time.jitter import MeasuredVariation
from bros_sglang.evals.step_time.profile import ProfileLoad, fitted, recording_command
from bros_sglang.evals.step_time.record import read_steps
from bros_sglang.evals.step_time.recording_server import RECORD_ENV
from bros_sglang.evals.step_time.request_times import measured_frontend, read_request_times
from bros_sglang.evals.workloads.request import ListedWorkload
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bros_sglang.evals.step_time.linear import LinearStepTime
    from bros_sglang.evals.step_time.record import RecordedStep
    from bros_sglang.evals.step_time.request_times import RequestTimes
    from bros_sglang.evals.workloads.request import Workload

PROFILE_S = 24.0  # before the first round, after each
WARMUP_S = 4.0
# Virtual seconds of the same load before a replay: the live server has been up for longer, its cache is full
# and a policy that learns has learnt.
LEARN_S = 20.0
TOLERANCE = 0.15
FIGURES = ("RT TTFT p50 ms", "RT TTFT p99 ms", "RT TPOT p50 ms", "RT TPOT p99 ms", "BE tokens/s")


@dataclass(frozen=True, slots=True)
class ValidationLoad:
    """One workload of the comparison, in specs."""

    name: str
    rt: str
    be: str


LOADS = (
    ValidationLoad(
        "steady",
        "uniform:prompt=32-256,output=8-48,rate=6",
        "uniform:prompt=128-512,output=16-64,outstanding=24",
    ),
    ValidationLoad(
        "waves",
        "synthetic:scale=8,max_context=1024,arrivals=waves,rate=8,low=1,period=10",
        "uniform:prompt=64-384,output=8-32,outstanding=16,prefix=128",
    ),
)


def figures_of(runs: Sequence[Run]) -> dict[str, float | None]:
    """Return what is compared: latencies over the requests of all runs, the median of their throughputs.

    All None without runs.
    """
    if not runs:
        return dict.fromkeys(FIGURES)
    ttft = distribution_ms(record.ttft_s for run in runs for record in run.rt)
    tpot = distribution_ms(record.tpot_s for run in runs for record in run.rt)
    be_tokens_per_s = median(compute_result(run)["be"]["tokens_per_s"] for run in runs)
    values = (ttft["p50"], ttft["p99"], tpot["p50"], tpot["p99"], be_tokens_per_s)
    return dict(zip(FIGURES, values, strict=True))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One policy under one load, live and replayed: a run per round."""

    policy: str
    load: ValidationLoad
    live: Sequence[Run]
    replayed: Sequence[Run]
    replayed_own: Sequence[Run]  # with a model fitted to the measured rounds' own passes; empty: too few
    stalled_share: float  # of the measured time, in passes that took over four times what the model says

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per figure."""
        live, replayed, own = (figures_of(runs) for runs in (self.live, self.replayed, self.replayed_own))
        by_round = [figures_of([run]) for run in self.live]
        rows = []
        for name in FIGURES:
            measured = [value for value in (one[name] for one in by_round) if value is not None]
            ratio = _ratio(replayed[name], live[name])
            rows.append(
                {
                    "load": self.load.name,
                    "policy": self.policy,
                    "figure": name,
                    "live": live[name],
                    "live_rounds": measured,
                    "live_spread": _spread(measured),
                    "replay": replayed[name],
                    "ratio": ratio,
                    "within": ratio is not None and abs(ratio - 1.0) <= TOLERANCE,
                    "ratio_own_steps": _ratio(own[name], live[name]),
                }
            )
        return rows


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value is not None and reference else None


def _spread(rounds: Sequence[float]) -> float | None:
    """Return how far the rounds lie from their median at most, as a share of it; None with fewer than two."""
    middle = median(rounds) if len(rounds) > 1 else 0.0
    return max(abs(value / middle - 1.0) for value in rounds) if middle else None


def learnt(rt: Workload, before: Workload) -> ListedWorkload:
    """Return `rt` put off by LEARN_S, with what arrives in `before` by then in front of it."""
    early = [replace(r, rid=f"before-{r.rid}") for r in before if r.arrival_s < LEARN_S]
    late = [replace(r, arrival_s=r.arrival_s + LEARN_S) for r in rt]
    return ListedWorkload(rt.name, (*early, *late))


def _plan(load: ValidationLoad, seconds: float) -> LoadPlan:
    end_s = WARMUP_S + seconds
    rt = parse_workload(
        load.rt, RequestClass.RT, seconds=end_s, ttft_ms=150.0, tpot_ms=30.0, exact_limit=True
    )
    be = parse_workload(load.be, RequestClass.BE, exact_limit=True)
    return LoadPlan(rt, be, seconds, WARMUP_S)


@dataclass(frozen=True, slots=True)
class Measured:
    """One policy's live rounds, with what the server recorded meanwhile."""

    policy: str
    arguments: Sequence[str]  # of the server
    rounds: dict[str, list[Run]]  # by load
    profile: ProfileLoad
    recorded: list[RecordedStep]
    times: dict[str, RequestTimes]


def _prefix(load: ValidationLoad, number: int) -> str:
    return f"{load.name}-{number}-"


def measure_policy(
    policy_name: str,
    tiny_model: Path,
    folder: Path,
    *,
    loads: Sequence[ValidationLoad] = LOADS,
    seconds: float,
    rounds: int,
    profile_s: float = PROFILE_S,
    on_phase: Callable[[str], None],
) -> Measured:
    """Measure one policy under each load, `rounds` times in turn, with a profile before and after each round.

    Raises:
        LiveError: the server does not start or stops answering.
    """
    arguments = ["--model-path", str(tiny_model), *TINY_FLAGS, *LIVE_POLICIES[policy_name].flags]
    steps_file = folder / f"steps-{policy_name}.jsonl"
    env = {**TINY_ENV, RECORD_ENV: str(steps_file)}
    measured: dict[str, list[Run]] = {load.name: [] for load in loads}
    on_phase(f"{policy_name}: starting the server")
    with ServerProcess(recording_command(arguments), folder / f"server-{policy_name}.log", env=env) as server:
        dialect = probe.identify(server.url)
        if not isinstance(dialect, SGLangDialect):
            raise TypeError("the server started here is SGLang's")
        profile = ProfileLoad(server.url, lambda phase: on_phase(f"{policy_name}: profile, {phase}"))
        profile.age()
        profile.run(profile_s)
        for number in range(rounds):
            for load in loads:
                on_phase(f"{policy_name}: {load.name}, round {number + 1} of {rounds}")
                told = replace(dialect, rid_prefix=_prefix(load, number))
                run = run_load(server.url, told, _plan(load, seconds))
                measured[load.name].append(
                    replace(run, facts=replace(run.facts, policy=f"{policy_name} {load.name}"))
                )
                probe.drain(server.url)
            profile.run(profile_s)
    recorded, times = read_steps(steps_file), read_request_times(steps_file)
    return Measured(policy_name, arguments, measured, profile, recorded, times)


def compare(
    measured: Measured,
    folder: Path,
    *,
    loads: Sequence[ValidationLoad] = LOADS,
    seconds: float,
    on_phase: Callable[[str], None],
) -> list[Comparison]:
    """Fit models to what was recorded, replay each load as often as it was measured, and compare.

    Raises:
        FitError: too few passes of a kind were recorded in the profile.
        ReplayFailedError: a replay did not finish.
    """
    profiled = fitted(measured.recorded, measured.profile, measured.times, measured.arguments).model
    profiled.save(folder / f"step-time-{measured.policy}.json")
    comparisons = []
    for load in loads:
        on_phase(f"{measured.policy}: replaying {load.name}")
        live = measured.rounds[load.name]
        own_steps = [step for run in live for step in _between(measured.recorded, run)]
        replayed = _replayed(measured.policy, load, seconds, profiled, len(live), folder)
        replayed_own: list[Run] = []
        with contextlib.suppress(FitError):  # a short run on a busy machine; the profile is what counts
            own, _ = fit_steps(own_steps, "own passes", blocking=profiled.blocking)
            prefixes = [_prefix(load, number) for number in range(len(live))]
            own.frontend = measured_frontend(live, measured.times, prefixes)
            replayed_own = _replayed(measured.policy, load, seconds, own, len(live), folder)
        stalled = stalled_share(own_steps, profiled)
        comparisons.append(Comparison(measured.policy, load, live, replayed, replayed_own, stalled))
    return comparisons


def _between(recorded: Sequence[RecordedStep], run: Run) -> list[RecordedStep]:
    """Return the passes of a run, its warm-up included."""
    zero_s = run.facts.clock_zero_s or 0.0
    return [step for step in recorded if zero_s <= step.launched_s < zero_s + run.facts.end_s]


def stalled_share(steps: Sequence[RecordedStep], model: LinearStepTime) -> float:
    """Return the share of time in passes that the machine held up: above a few percent, it is not quiet."""
    passes = durations(steps, blocking=model.blocking)
    total_s = sum(seconds for _, seconds in passes)
    stalled_s = sum(seconds for step, seconds in passes if seconds > OUTLIER_FACTOR * model.step_s(step))
    return stalled_s / total_s if total_s else 0.0


def _replayed(
    policy_name: str,
    load: ValidationLoad,
    seconds: float,
    model: LinearStepTime,
    rounds: int,
    folder: Path,
) -> list[Run]:
    """Replay a load `rounds` times; passes and ways to client and back are drawn anew each time."""
    flags = arguments_as_flags([*TINY_FLAGS, *LIVE_POLICIES[policy_name].flags])
    pool_tokens, slots = int(flags.pop("max-total-tokens")), int(flags.pop("max-running-requests"))
    plan = _plan(load, seconds)
    before = parse_workload(
        load.rt, RequestClass.RT, seconds=LEARN_S, seed=1, ttft_ms=150.0, tpot_ms=30.0, exact_limit=True
    )
    rt = None if plan.rt is None else learnt(plan.rt, before)
    tagging = Tagging(bros_tag=True, rt_priority=RT_PRIORITY, be_priority=BE_PRIORITY, ignore_eos=True)
    jobs = [
        ReplayJob(
            label=f"{policy_name}-{load.name}-{number}",
            policy=PolicySpec(policy_name, "as the live server was started", flags=flags, tagging=tagging),
            rt=rt,
            be=plan.be,
            step_time=MeasuredVariation(model, seed=number),
            pool_tokens=pool_tokens,
            max_running_requests=slots,
            context_length=4096,
            page_size=1,
            seconds=LEARN_S + plan.end_s,
            drain_s=plan.grace_s,
            cpu_s_per_pass=0.0,  # launch to launch: the scheduler's own time is in the model
            frontend=model.frontend,
            frontend_seed=number,
            measure_from_s=LEARN_S + plan.warmup_s,
        )
        for number in range(rounds)
    ]
    runs = []
    for result in run_jobs(jobs, folder, parallel=2):
        if isinstance(result, ReplayFailedError):
            raise result
        runs.append(Run(result.records, result.facts))
    return runs


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
