"""`bros eval memory`: what the KV allocator and the prefix tree cost, and what placement buys."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from bros_sglang.evals.memory.churn import ChurnResult
    from bros_sglang.evals.memory.micro import Timing

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_LIMIT = 1.25  # times stock's median


@app.command()
def memory(
    *,
    micro: Annotated[
        bool, typer.Option("--micro", help="Time single operations against stock's classes instead.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw who sits where in the pool (.png or .svg); not with --micro.")
    ] = None,
    pool: Annotated[
        int | None,
        typer.Option(min=1000, help="Pool, tokens; by default 1,000,000 with --micro, else 120,000."),
    ] = None,
    page_size: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens per page; by default 16 beside 1 with --micro, else 1."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=5, help="Repeats of each timing.")] = 400,
    steps: Annotated[int, typer.Option(min=100, help="Decode steps of churn.")] = 4000,
    seed: Annotated[int, typer.Option(help="Seed of the churn.")] = 0,
    device: Annotated[str, typer.Option(help="Where the copied KV lies: cpu, cuda, or auto.")] = "auto",
    layers: Annotated[int, typer.Option(min=1, help="Layers of KV to copy.")] = 2,
) -> None:
    """Measure placement under churn and host copies; with --micro, the time of single operations."""
    console = Console(stderr=True)
    for path in (json_file, picture):
        if path is not None and not path.resolve().parent.is_dir():
            console.print(
                f"error: {path}: its folder does not exist; make it first", style="red", markup=False
            )
            raise typer.Exit(2)
    if picture is not None and (micro or picture.suffix not in (".png", ".svg")):
        console.print("error: --picture takes a .png or .svg file, and does not go with --micro", style="red")
        raise typer.Exit(2)
    import torch

    torch.set_num_threads(1)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        console.print("error: --device cuda: no GPU is visible to torch; use --device cpu", style="red")
        raise typer.Exit(2)
    if micro:
        rows: list[dict[str, Any]] = _micro(console, pool or 1_000_000, repeats, page_size or 16)
    else:
        rows = _locality(console, pool or 120_000, page_size or 1, steps, seed, device, layers, picture)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        console.print(f"written: {json_file}", markup=False)


def _micro(console: Console, pool: int, repeats: int, page_size: int) -> list[dict[str, Any]]:
    from bros_sglang.evals.memory.micro import run_micro

    timings: list[Timing] = []
    with console.status("filling the pools …") as status:
        for timing in run_micro(pool, repeats, page_size):
            timings.append(timing)
            status.update(f"{timing.operation} of {timing.size:,} tokens")
    by_case: dict[tuple[str, int], dict[str, Timing]] = {}
    for timing in timings:
        by_case.setdefault((timing.operation, timing.size), {})[timing.allocator] = timing
    table = Table(
        title=f"Median time of one operation, pool of {pool:,} tokens after churn (mean in brackets)"
    )
    for heading in ("operation", "size", "this project, us", "stock, us", "ratio"):
        table.add_column(heading, justify="left" if heading == "operation" else "right")
    for (operation, size), case in by_case.items():
        cores = "rust" in case
        ours = case["rust" if cores else "bros"]
        theirs = case.get("python" if cores else "stock")
        label = f"{operation} (Rust | Python core)" if cores else operation
        cells = [label, f"{size:,}", f"{ours.median_us:.1f} ({ours.mean_us:.1f})"]
        if theirs is None:
            cells += ["", ""]
        else:
            ratio = ours.median_us / theirs.median_us
            cells += [f"{theirs.median_us:.1f} ({theirs.mean_us:.1f})", f"{ratio:.2f}"]
        table.add_row(*cells)
    Console().print(table)
    paired = [case for case in by_case.values() if "stock" in case]
    over = sum(case["bros"].median_us > _LIMIT * case["stock"].median_us for case in paired)
    Console().print(f"{len(paired) - over} of {len(paired)} operations within {_LIMIT} x stock")
    return [timing._asdict() for timing in timings]


def _locality(
    console: Console,
    pool: int,
    page_size: int,
    steps: int,
    seed: int,
    device: str,
    layers: int,
    picture: Path | None,
) -> list[dict[str, Any]]:
    from bros_sglang.evals.memory.churn import run_churn
    from bros_sglang.evals.memory.pool_driver import VARIANTS

    results: dict[str, ChurnResult] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        for variant in VARIANTS:
            task = progress.add_task(f"churn, {variant}", total=steps)
            results[variant] = run_churn(
                variant,
                pool=pool,
                page_size=page_size,
                steps=steps,
                seed=seed,
                on_step=lambda _, task=task: progress.advance(task),  # type: ignore[misc]
            )
    rows = _locality_rows(results, pool, page_size, device, layers)
    table = Table(title=f"After {steps:,} steps of churn in {pool:,} tokens, page size {page_size}")
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row["measure"], *(f"{row[name]:,.2f}" for name in results))
    Console().print(table)
    if picture is not None:
        from bros_sglang.evals.memory.picture import draw_occupancy

        draw_occupancy({name: result.occupancy for name, result in results.items()}, picture)
        console.print(f"written: {picture}", markup=False)
    return rows


def _locality_rows(
    results: dict[str, ChurnResult], pool: int, page_size: int, device: str, layers: int
) -> list[dict[str, Any]]:
    import torch

    from bros_sglang.evals.memory.locality import copy_times

    measures: dict[str, dict[str, float]] = {}
    for variant, result in results.items():
        for name, locality in (("real-time", result.rt), ("best-effort", result.be)):
            measures.setdefault(f"{name}: runs per request (median)", {})[variant] = locality.runs_per_request
            measures.setdefault(f"{name}: tokens per run", {})[variant] = locality.tokens_per_run
        for name in ("finished", "preemptions", "computed_tokens", "redone_tokens"):
            measures.setdefault(name.replace("_", " "), {})[variant] = float(getattr(result, name))
    # Width of one layer's keys and values: 8 heads of 128, as in Llama 3 8B.
    kv = torch.ones((layers, pool + page_size, 2 * 8 * 128), dtype=torch.float16, device=device)
    victims = {variant: result.victims[-32:] for variant, result in results.items() if result.victims}
    if len(victims) == len(results):
        for variant, times in copy_times(kv, victims).items():
            measures.setdefault(f"copy of a best-effort request to host, scattered, ms ({device})", {})[
                variant
            ] = times.scattered_ms
            measures.setdefault(f"the same, in runs, ms ({device})", {})[variant] = times.in_runs_ms
            measures.setdefault("the same, megabytes", {})[variant] = times.megabytes
    return [{"measure": name, **values} for name, values in measures.items()]
