"""`bros eval profile`: measure a server's passes and fit a step-time model for the replay."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.server_process import terminate_as_interrupt
from bros_sglang.evals.live.sglang_command import TINY_ENV, TINY_FLAGS
from bros_sglang.evals.metrics.output_folder import OutputFolderError, claim_folder
from bros_sglang.evals.step_time.fit import FitError, fit_steps
from bros_sglang.evals.step_time.linear import StepTimeFileError
from bros_sglang.evals.step_time.picture import draw_fit
from bros_sglang.evals.step_time.profile import Profile, profile_server
from bros_sglang.evals.step_time.record import read_steps
from bros_sglang.evals.tiny_model import build_tiny_model

app = typer.Typer(add_completion=False, rich_markup_mode=None)
MODEL_FILE, PICTURE_FILE = "step-time.json", "step-time.png"


@app.command()
def profile(
    out: Annotated[Path, typer.Option(help="Folder for step-time.json, its picture and the recorded steps.")],
    model_path: Annotated[
        str | None, typer.Option(help="Model to serve; by default a tiny one on the CPU.")
    ] = None,
    server_args: Annotated[str, typer.Option(help="More arguments of `sglang serve`, quoted as one.")] = "",
    seconds: Annotated[float, typer.Option(help="How long to put load on the server.", min=5.0)] = 60.0,
    steps: Annotated[
        Path | None, typer.Option(help="Fit recorded steps (a steps.jsonl) instead of starting a server.")
    ] = None,
    blocking: Annotated[
        bool, typer.Option("--blocking", help="With --steps: they were recorded on a CPU.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
) -> None:
    """Record the passes of a server, stock or bros, and fit the replay's step-time model to them."""
    console = Console(stderr=True)
    try:
        extra = shlex.split(server_args)
        recorded = read_steps(steps) if steps is not None else None
        claim_folder(out, {"command": ["bros", *sys.argv[1:]]}, overwrite=overwrite)
        if recorded is not None:
            model, report = fit_steps(recorded, f"fitted to {steps}", blocking=blocking)
            result = Profile(model, report, recorded)
        else:
            result = _measured(out, model_path, extra, seconds, console)
    except (LiveError, FitError, StepTimeFileError, OutputFolderError, ValueError) as error:
        console.print(f"bros eval profile: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(2) from error
    result.model.save(out / MODEL_FILE)
    draw_fit(result.report, result.model.name, out / PICTURE_FILE)
    report = result.report
    console.print(
        f"{report.steps} steps ({report.outliers} outliers left out): half of them within "
        f"{report.error_p50:.1%}, 95 % within {report.error_p95:.1%} of the model",
        highlight=False,
    )
    for name, value in result.model.describe()["coefficients"].items():
        if value:
            console.print(f"  {name:26} {value:.3e}", highlight=False)
    for name, ways in result.model.frontend.by_class:
        median_in, median_back = (float(np.median(times)) for times in (ways.in_s, ways.back_s))
        console.print(
            f"  {name} requests: {1e3 * median_in:.1f} ms to the scheduler, {1e3 * median_back:.1f} ms back",
            highlight=False,
        )
    console.print(f"use it: bros eval replay --step-time {out / MODEL_FILE} …", highlight=False)


def _measured(
    out: Path, model_path: str | None, extra: list[str], seconds: float, console: Console
) -> Profile:
    with tempfile.TemporaryDirectory() as scratch, terminate_as_interrupt(), console.status("") as status:
        if model_path is None:
            tiny = build_tiny_model(Path(scratch) / "tiny-llama")
            arguments, env = ["--model-path", str(tiny), *TINY_FLAGS, *extra], dict(TINY_ENV)
        else:
            arguments, env = ["--model-path", model_path, *extra], {}
        return profile_server(arguments, out, seconds=seconds, env=env, on_phase=status.update)


if __name__ == "__main__":
    app()
