"""`bros demo`: stock SGLang and bros on real servers under the same mixed load, side by side."""

from __future__ import annotations

import shlex
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bros_sglang.evals.demo import preset
from bros_sglang.evals.demo.picture import write_picture
from bros_sglang.evals.demo.summary import late_client, sentences
from bros_sglang.evals.live.campaign import Campaign, results_of, run_campaign
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.server_process import terminate_as_interrupt
from bros_sglang.evals.live.sglang_command import TINY_ENV, tiny_server_command
from bros_sglang.evals.live.table import comparison_table
from bros_sglang.evals.live.watch import Watch
from bros_sglang.evals.metrics.output_folder import OutputFolderError, claim_folder
from bros_sglang.evals.workloads.errors import WorkloadError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for table, picture and raw results; default: demo-results/TIME."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Measured part of each run.", min=5.0)] = preset.SECONDS,
    rounds: Annotated[
        int, typer.Option(help="Interleaved rounds; the table shows medians, each round is kept.", min=1)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Seed of lengths and arrivals.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
) -> None:
    """Show stock SGLang and bros under the same mixed load, on the CPU with a tiny model.

    Starts a real SGLang server for each of stock fcfs, stock priorities with preemption, and bros, and sends
    each the same chat requests (6 per second) beside 64 batch requests that never let up. Takes under five
    minutes and leaves a table, a picture and the raw results in a folder.
    """
    console = Console(highlight=False)
    folder = out or Path("demo-results") / datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    try:
        with terminate_as_interrupt():
            _run(console, folder, seconds, rounds, seed, overwrite=overwrite)
    except (LiveError, WorkloadError, OutputFolderError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; servers are stopped, what was measured is in {folder}", err=True)
        raise typer.Exit(130) from None


def _run(console: Console, folder: Path, seconds: float, rounds: int, seed: int, *, overwrite: bool) -> None:
    plan, policies = preset.demo_plan(seconds, seed), preset.demo_policies()
    workloads = {"rt": preset.RT_SPEC, "be": preset.BE_SPEC}
    if plan.rt is not None and plan.be is not None:
        workloads = {"rt": plan.rt.name, "be": plan.be.name}
    about = {"command": shlex.join(["bros", *sys.argv[1:]]), "workloads": workloads, "seed": seed}
    claim_folder(folder, about, overwrite=overwrite)
    _introduce(console, len(policies), rounds, plan.end_s)
    with tempfile.TemporaryDirectory(prefix="bros-demo-") as scratch:
        command = tiny_server_command(Path(scratch))
        campaign = Campaign(plan, policies, rounds, command=command, env=dict(TINY_ENV), api="sglang")
        runs = len(policies) * rounds
        with Watch(console, runs=runs, seconds=plan.end_s, rounds=rounds) as watch:
            outcomes = run_campaign(campaign, folder, watch)
    results = results_of(policies, outcomes)
    first = {o.policy.name: o.run.records for o in reversed(outcomes)}
    records = {policy.name: first[policy.name] for policy in policies}
    picture = write_picture(folder / "demo.png", results, records)
    table = comparison_table(results)
    console.print()
    console.print(table)
    console.print()
    for line in sentences(results):
        console.print(line)
    if (note := late_client(results)) is not None:
        console.print(note)
    with (folder / "table.txt").open("w") as handle:
        Console(file=handle, width=80).print(table)
    console.print(
        f"\nPicture: {picture}\nTable, results and server logs: {folder}{'/' if folder.name else ''}"
    )


def _introduce(console: Console, policies: int, rounds: int, load_s: float) -> None:
    minutes = rounds * (policies * (load_s + 4) + (policies - 1) * 20) / 60
    each = f" in each of {rounds} rounds" if rounds > 1 else ""
    console.print(
        f"Chat ({preset.RT_SPEC}) beside batch work ({preset.BE_SPEC})\n"
        f"on real SGLang servers with a tiny model. Targets: TTFT {preset.TTFT_MS:g} ms, "
        f"TPOT {preset.TPOT_MS:g} ms.\n{policies} runs{each}, about {minutes:.0f} minutes.\n",
        soft_wrap=True,
    )
