"""Stage profile: the step-time model, fitted to the measured passes of a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.loads import mixed_plan
from bros_sglang.evals.live import probe
from bros_sglang.evals.live.load import run_load
from bros_sglang.evals.step_time.picture import draw_fit
from bros_sglang.evals.step_time.profile import fitted, load_in_phases, recording_command
from bros_sglang.evals.step_time.record import read_steps
from bros_sglang.evals.step_time.recording_server import RECORD_ENV

if TYPE_CHECKING:
    from bros_sglang.evals.gpu.run import GpuRun

NEEDS = (("start", "stock"),)
MODEL_FILE = "step-time.json"


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell per policy: stock's steps are prefill or decode, those of bros mixed."""
    estimate_s = run.scale.start_s + run.scale.profile_s + 30.0
    return [
        Cell("profile", "fcfs", estimate_s, lambda: _measure(run, "fcfs"), NEEDS),
        Cell("profile", "bros", estimate_s, lambda: _measure(run, "bros"), NEEDS),
    ]


def _measure(run: GpuRun, policy: str) -> dict[str, Any]:
    scale = run.scale
    folder = run.folder("profile", policy)
    steps = folder / "steps.jsonl"
    steps.unlink(missing_ok=True)
    arguments = run.arguments(policy)
    env = {RECORD_ENV: str(steps)}
    server = run.server(recording_command(arguments), f"profile-{policy}", env)
    idle = load_in_phases(server.url, scale.profile_s * 0.6)
    # The range of the measured load: as many rows as it has, both classes.
    plan = mixed_plan(scale, scale.rates[-1], seconds=scale.profile_s * 0.4)
    run_load(server.url, probe.identify(server.url), plan)
    run.close()
    device = ("--device", scale.device)
    profile = fitted(read_steps(steps), idle, [*arguments, *device])
    profile.model.name = f"{scale.model} on {scale.device}, {policy}, fitted"
    profile.model.save(folder / MODEL_FILE)
    draw_fit(profile.report, profile.model.name, folder / "step-time.png")
    return {"model": profile.model.describe(), **profile.report.summary()}
