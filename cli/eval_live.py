"""`bros eval live`: the workloads and metrics of the replay, against live servers."""

from __future__ import annotations

import shlex
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bros_sglang.evals.live.campaign import results_of, run_campaign
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.options import LiveOptions, campaign_of, plan_of, policies_of
from bros_sglang.evals.live.probe import identify
from bros_sglang.evals.live.server_process import terminate_as_interrupt
from bros_sglang.evals.live.table import comparison_table
from bros_sglang.evals.live.watch import Watch
from bros_sglang.evals.metrics.output_folder import OutputFolderError, claim_folder
from bros_sglang.evals.workloads.errors import WorkloadError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def live(
    url: Annotated[
        str | None, typer.Option(help="Measure the server at this URL (OpenAI-compatible).")
    ] = None,
    label: Annotated[str, typer.Option(help="Name of that server in the results.")] = "server",
    bounds: Annotated[
        bool, typer.Option("--bounds", help="Also RT alone and BE alone on that server.")
    ] = False,
    policies: Annotated[
        str, typer.Option(help="Without --url: start an SGLang server for each of these policies.")
    ] = "rt-alone,fcfs,priority,bros",
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=COMMAND of another engine's server, with {port} and {model}; repeatable. Each is "
            "measured beside its own RT alone (--bounds: and BE alone) in the same rounds as --policies."
        ),
    ] = None,
    model_path: Annotated[
        Path | None, typer.Option(help="Model of the servers; default: a tiny one is built.")
    ] = None,
    server_args: Annotated[
        str, typer.Option(help="Further flags for the servers, as one quoted string.")
    ] = "",
    rt: Annotated[
        str, typer.Option(help="RT workload: a SPEC, a trace file, or none.")
    ] = "sharegpt:rate=6,scale=8",
    be: Annotated[
        str, typer.Option(help="BE workload: a SPEC, a trace file, or none.")
    ] = "uniform:prompt=128-256,output=32-128,outstanding=64",
    seconds: Annotated[float, typer.Option(help="Measured part of each run.", min=1.0)] = 60.0,
    warmup: Annotated[float, typer.Option(help="Seconds of load before it.", min=0.0)] = 5.0,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; the results are medians.", min=1)] = 1,
    speed: Annotated[float, typer.Option(help="Times faster than a trace's own times.", min=0.001)] = 1.0,
    ttft_ms: Annotated[float, typer.Option(help="RT target for the first token.", min=0.001)] = 400.0,
    tpot_ms: Annotated[float, typer.Option(help="RT target per further token.", min=0.001)] = 200.0,
    seed: Annotated[int, typer.Option(help="Seed of lengths and arrivals.", min=0)] = 0,
    api: Annotated[str, typer.Option(help="auto, sglang (/generate) or openai (/v1/completions).")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("eval-live"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
) -> None:
    """Measure live servers under mixed load; writes results.json, results.csv and requests.parquet.

    With --url one running server is measured, whatever it is. Otherwise an SGLang server is started per
    policy, and one per --server, in interleaved rounds, one at a time. Requests carry their class as
    `custom_params.bros` and as `priority`.
    """
    options = LiveOptions(
        url=url,
        label=label,
        bounds=bounds,
        policies=policies,
        model_path=None if model_path is None else str(model_path),
        server_args=server_args,
        rt=rt,
        be=be,
        seconds=seconds,
        warmup=warmup,
        rounds=rounds,
        speed=speed,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        seed=seed,
        api=api,
        servers=tuple(server or ()),
    )
    console = Console(highlight=False)
    try:
        with terminate_as_interrupt():
            _run(console, options, out, overwrite=overwrite)
    except (LiveError, WorkloadError, OutputFolderError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted; servers are stopped, what was measured is in {out}", err=True)
        raise typer.Exit(130) from None


def _run(console: Console, options: LiveOptions, out: Path, *, overwrite: bool) -> None:
    plan = plan_of(options)
    policies = policies_of(options, plan)
    if options.url is not None:
        identify(options.url, options.api)  # a wrong URL must not cost an output folder
    workloads = {name: w.name for name, w in (("rt", plan.rt), ("be", plan.be)) if w is not None}
    about = {
        "command": shlex.join(["bros", *sys.argv[1:]]),
        "options": asdict(options),
        "workloads": workloads,
    }
    folder = claim_folder(out, about, overwrite=overwrite)
    runs = len(policies) * options.rounds
    with tempfile.TemporaryDirectory(prefix="bros-eval-") as scratch:
        campaign = campaign_of(options, plan, policies, Path(scratch))
        with Watch(console, runs=runs, seconds=plan.end_s, rounds=options.rounds) as watch:
            outcomes = run_campaign(campaign, folder, watch)
    console.print()
    console.print(comparison_table(results_of(policies, outcomes)))
    console.print(f"\nTargets: TTFT {options.ttft_ms:g} ms, TPOT {options.tpot_ms:g} ms. Results: {folder}")
