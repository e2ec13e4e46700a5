"""Stage replay: the measured loads replayed with the fitted step-time model. Needs no GPU; runs anywhere."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu import environment
from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.figures import REPLAY_FIGURES
from bros_sglang.evals.gpu.loads import mixed_plan
from bros_sglang.evals.gpu.stages.load import cell_name
from bros_sglang.evals.gpu.stages.profile import MODEL_FILE
from bros_sglang.evals.live.dialect import BE_PRIORITY, RT_PRIORITY
from bros_sglang.evals.live.policy_flags import POLICIES
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.metrics.run import Run
from bros_sglang.evals.replay.arrivals import Tagging
from bros_sglang.evals.replay.job import ReplayFailedError, ReplayJob
from bros_sglang.evals.replay.policies import PolicySpec
from bros_sglang.evals.replay.processes import run_jobs
from bros_sglang.evals.replay.validate import arguments_as_flags
from bros_sglang.evals.step_time.linear import LinearStepTime

if TYPE_CHECKING:
    from bros_sglang.evals.gpu.run import GpuRun

TOLERANCE = 0.10
CPU_S_PER_PASS = 300e-6  # of the scheduler, before a launch; `bros eval replay`'s default


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell per policy and rate."""
    made = []
    for policy in ("fcfs", "bros"):
        for rate in run.scale.rates:
            name = cell_name(policy, rate)
            needs = (("profile", policy), ("load", name))
            made.append(Cell("replay", name, 60.0, partial(_compare, run, policy, rate), needs))
    return made


def _compare(run: GpuRun, policy: str, rate: float) -> dict[str, Any]:
    scale = run.scale
    live = run.store.result("load", cell_name(policy, rate)) or {}
    run.close()
    environment.adopt(run.env)  # the replay's process forks from here, and needs the plugin and the tree core
    model = LinearStepTime.load(run.out / "profile" / policy / MODEL_FILE)
    plan = mixed_plan(scale, rate)
    settings = ["--chunked-prefill-size", str(scale.chunk_tokens), *POLICIES[policy].flags]
    job = ReplayJob(
        label=f"gpu-{cell_name(policy, rate)}",
        policy=PolicySpec(
            policy,
            "as the live server was started",
            flags=arguments_as_flags(settings),
            tagging=Tagging(bros_tag=True, rt_priority=RT_PRIORITY, be_priority=BE_PRIORITY, ignore_eos=True),
        ),
        rt=plan.rt,
        be=plan.be,
        step_time=model,
        pool_tokens=scale.pool_tokens,
        max_running_requests=scale.running,
        context_length=scale.context_tokens,
        page_size=1,
        seconds=plan.end_s,
        drain_s=plan.grace_s,
        cpu_s_per_pass=0.0 if model.blocking else CPU_S_PER_PASS,
        measure_from_s=plan.warmup_s,
        frontend=model.frontend,
    )
    (result,) = run_jobs([job], run.folder("logs"))
    if isinstance(result, ReplayFailedError):
        raise result
    replayed = compute_result(Run(result.records, result.facts))
    figures = [_figure(name, path, live, replayed) for name, path in REPLAY_FIGURES.items()]
    return {"rate": rate, "figures": figures, "within": sum(f["within"] for f in figures)}


def _figure(
    name: str, path: tuple[str, ...], live: dict[str, Any], replayed: dict[str, Any]
) -> dict[str, Any]:
    values = []
    for result in (live, replayed):
        value: Any = result
        for key in path:
            value = value[key]
        values.append(value)
    seen, predicted = values
    ratio = predicted / seen if seen and predicted is not None else None
    within = ratio is not None and abs(ratio - 1.0) <= TOLERANCE
    return {"figure": name, "live": seen, "replay": predicted, "ratio": ratio, "within": within}
