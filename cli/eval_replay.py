"""`bros eval replay`: one workload under several schedulers, in virtual time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bros_sglang.evals.metrics.output_folder import OutputFolderError, claim_folder
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.metrics.run import Run
from bros_sglang.evals.metrics.write import write_requests, write_results
from bros_sglang.evals.replay.compare import CompareOptions, jobs_for
from bros_sglang.evals.replay.job import JobResult, ReplayFailedError
from bros_sglang.evals.replay.policies import POLICIES
from bros_sglang.evals.replay.processes import run_jobs
from bros_sglang.evals.replay.sweep import mark_best

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.replay.job import ReplayJob

app = typer.Typer(add_completion=False, rich_markup_mode=None)
DEFAULT_POLICIES = "rt-alone,be-alone,fcfs,lpm,priority,priority-mixed,round-robin,bros"


@app.command()
def replay(
    out: Annotated[Path, typer.Option(help="Folder for the results; it must not hold another run.")],
    rt: Annotated[str, typer.Option(help="Real-time workload: a file or a spec.")] = "sharegpt:rate=8",
    be: Annotated[
        str, typer.Option(help="Best-effort workload: a file or a spec.")
    ] = "paper:outstanding=128",
    policies: Annotated[
        str, typer.Option(help=f"Comma-separated, from: {', '.join(POLICIES)}.")
    ] = DEFAULT_POLICIES,
    model: Annotated[str, typer.Option(help="Model preset, or the path of a config.json.")] = "llama3-8b",
    gpu: Annotated[str, typer.Option(help="GPU preset.")] = "h200",
    tp: Annotated[int, typer.Option(help="Tensor-parallel GPUs.")] = 1,
    step_time: Annotated[
        str, typer.Option(help="roofline, a named preset, or a file that `bros eval profile` wrote.")
    ] = "roofline",
    step_jitter: Annotated[
        float, typer.Option(help="Relative spread of pass times, such as 0.05; the same in every run.")
    ] = 0.0,
    pool_tokens: Annotated[
        int | None, typer.Option(help="KV pool; by default what the GPU's memory leaves.")
    ] = None,
    max_running_requests: Annotated[int, typer.Option(help="Request slots.")] = 256,
    context_length: Annotated[
        int | None, typer.Option(help="By default what the longest request needs.")
    ] = None,
    page_size: Annotated[int, typer.Option(help="Tokens per KV page.")] = 1,
    seconds: Annotated[float, typer.Option(help="Virtual seconds in which requests arrive.")] = 600.0,
    drain_seconds: Annotated[
        float, typer.Option(help="How much longer RT requests that have arrived may take.")
    ] = 120.0,
    speed: Annotated[float, typer.Option(help="Play a trace so many times faster.")] = 1.0,
    ttft_ms: Annotated[float, typer.Option(help="RT target for the first token.")] = 400.0,
    tpot_ms: Annotated[float, typer.Option(help="RT target per output token.")] = 200.0,
    seed: Annotated[int, typer.Option(help="Seed of lengths and arrivals.")] = 0,
    cpu_us_per_pass: Annotated[
        float, typer.Option(help="CPU time charged per pass (hidden behind the device under overlap).")
    ] = 300.0,
    jobs: Annotated[int, typer.Option(help="Replays at a time; each takes one core.", min=1)] = 1,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Run the stock policies at five chunk sizes, mixed and not.")
    ] = False,
    flag: Annotated[
        list[str] | None, typer.Option(help="[POLICY:]FLAG=VALUE of `sglang serve`; repeatable.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
) -> None:
    """Replay one workload under several schedulers in virtual time.

    Writes results.json, results.csv and requests.parquet into --out.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = 120
    options = CompareOptions(
        rt=rt,
        be=be,
        policies=tuple(name.strip() for name in policies.split(",") if name.strip()),
        model=model,
        gpu=gpu,
        tp=tp,
        step_time=step_time,
        step_jitter=step_jitter,
        pool_tokens=pool_tokens,
        max_running_requests=max_running_requests,
        context_length=context_length,
        page_size=page_size,
        seconds=seconds,
        drain_s=drain_seconds,
        speed=speed,
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        seed=seed,
        cpu_us_per_pass=cpu_us_per_pass,
        sweep=sweep,
        flags=tuple(flag or ()),
    )
    try:
        planned = jobs_for(options)
        claim_folder(
            out,
            {"command": ["bros", *sys.argv[1:]], "step_time": planned[0].step_time.describe()},
            overwrite=overwrite,
        )
    except (ValueError, OutputFolderError) as error:
        console.print(f"bros eval replay: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(2) from error
    results, failures = _run(planned, out, jobs, console)
    console.print(_table(results))
    for failure in failures:
        console.print(f"failed: {failure}", style="red", markup=False, highlight=False)
    if failures:
        raise typer.Exit(1)


def _run(
    planned: Sequence[ReplayJob], out: Path, parallel: int, console: Console
) -> tuple[list[dict[str, Any]], list[ReplayFailedError]]:
    results: list[dict[str, Any]] = []
    finished: list[JobResult] = []
    failures: list[ReplayFailedError] = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} virtual s"),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        tasks = {job.label: bars.add_task(job.label, total=job.seconds, start=False) for job in planned}

        def advance(label: str, now_s: float) -> None:
            bars.start_task(tasks[label])
            bars.update(tasks[label], completed=now_s)

        for outcome in run_jobs(planned, out, parallel=parallel, progress=advance):
            if isinstance(outcome, ReplayFailedError):
                failures.append(outcome)
                continue
            finished.append(outcome)
            results.append(compute_result(Run(outcome.records, outcome.facts)))
            # After each policy: an interrupted comparison keeps what it has.
            mark_best(results)
            write_results(out, results)
            write_requests(out, [(done.label, 0, done.records) for done in finished])
    return results, failures


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


_COLUMNS = (
    ("policy", "left"),
    ("TTFT p50/p99", "right"),
    ("TPOT p99", "right"),
    ("within", "right"),
    ("BE tok/s", "right"),
    ("BE req/s", "right"),
    ("preempt", "right"),
    ("tokens", "right"),
    ("pass/s", "right"),
    ("SGLang", "right"),
)


def _table(results: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        box=None,
        caption="times in ms of virtual time; pass/s and SGLang's share of them are this machine's"
        + ("; * best of its sweep" if any("sweep" in result for result in results) else ""),
        caption_justify="left",
    )
    for column, justify in _COLUMNS:
        table.add_column(column, justify="right" if justify == "right" else "left", no_wrap=True)
    for result in results:
        rt, be, real = result["rt"], result["be"], result.get("real_time") or {}
        within, share = rt["attainment"], real.get("sglang_share")
        table.add_row(
            result["policy"] + (" *" if result.get("sweep", {}).get("best") else ""),
            f"{_ms(rt['ttft_ms']['p50'])}/{_ms(rt['ttft_ms']['p99'])}",
            _ms(rt["tpot_ms"]["p99"]),
            "–" if within is None else f"{within:.1%}",
            f"{be['tokens_per_s']:,.0f}",
            f"{be['requests_per_s']:.2f}",
            str(result["preemptions"]),
            "conserved" if result["tokens"]["conserved"] else "NOT CONSERVED",
            f"{real['passes_per_s']:,.0f}" if real else "–",
            "–" if share is None else f"{share:.0%}",
        )
    return table


if __name__ == "__main__":
    app()
