"""Stage profile: the step-time model, fitted to the measured passes of a server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.loads import mixed_plan
from bros_sglang.evals.live import probe
from bros_sglang.evals.live.load import run_load
from bros_sglang.evals.step_time.fit import fit_steps
from bros_sglang.evals.step_time.picture import draw_fit
from bros_sglang.evals.step_time.profile import profile_server, recording_command
from bros_sglang.evals.step_time.record import read_steps
from bros_sglang.evals.step_time.recording_server import RECORD_ENV

if TYPE_CHECKING:
    from bros_sglang.evals.gpu.run import GpuRun

NEEDS = (("start", "stock"),)
MODEL_FILE = "step-time.json"


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell per policy: stock's steps are prefill or decode, those of bros mixed."""
    estimate_s = 2 * run.scale.start_s + run.scale.profile_s + 30.0
    return [
        Cell("profile", "fcfs", estimate_s, lambda: _measure(run, "fcfs"), NEEDS),
        Cell("profile", "bros", estimate_s, lambda: _measure(run, "bros"), NEEDS),
    ]


def _measure(run: GpuRun, policy: str) -> dict[str, Any]:
    """Record the passes of `bros eval profile`, then those of the mixed load, and fit one model to both.

    The profile's own loads end at 32 requests; the measured ones go on to where all seats are taken.
    """
    scale = run.scale
    folder = run.folder("profile", policy)
    arguments = run.arguments(policy)
    run.close()
    profile = profile_server(arguments, folder, seconds=scale.profile_s * 0.6, env=run.env)
    steps = folder / "steps-mixed.jsonl"
    steps.unlink(missing_ok=True)
    server = run.server(recording_command(arguments), f"profile-{policy}", {RECORD_ENV: str(steps)})
    plan = mixed_plan(scale, scale.rates[-1], seconds=scale.profile_s * 0.4)
    run_load(server.url, probe.identify(server.url), plan)
    run.close()  # its last steps are on disk then
    model, report = fit_steps(
        [*profile.recorded, *read_steps(steps)],
        f"{scale.model} on {scale.device}, {policy}, fitted",
        blocking=profile.model.blocking,
        provenance=dict(profile.model.provenance),
    )
    draw_fit(report, model.name, folder / "step-time.png")
    # What lies between client and scheduler was measured by the profile alone.
    profiled = profile.model.describe()
    between = {key: value for key, value in profiled.items() if key.startswith("frontend")}
    described = {**model.describe(), **between}
    (folder / MODEL_FILE).write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    return {"model": described, **report.summary()}
