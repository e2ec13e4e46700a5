"""`bros eval overhead`: what the policy's own work costs per pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(add_completion=False)


@app.command()
def overhead(
    policies: Annotated[str, typer.Option(help="Comma-separated policies.")] = "fcfs,priority,bros",
    running: Annotated[int, typer.Option(help="Requests running.", min=1)] = 256,
    waiting: Annotated[str, typer.Option(help="Requests waiting, comma-separated.")] = "1000,100000",
    passes: Annotated[int, typer.Option(help="Passes to time.", min=10)] = 400,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Time scheduling passes of the real scheduler, without a forward pass, on one core."""
    from bros_sglang.evals.overhead.measure import Overhead, measure_overhead

    console = Console()
    rows: list[Overhead] = []
    for count in waiting.split(","):
        for policy in policies.split(","):
            with console.status(f"{policy}: {running} running, {count} waiting"):
                try:
                    rows.append(measure_overhead(policy.strip(), running, int(count), passes))
                except (RuntimeError, ValueError) as error:
                    typer.echo(f"bros eval overhead: {error}", err=True)
                    raise typer.Exit(1) from error
    table = Table("policy", "running", "waiting", "own µs p50", "p99", "pass µs p50", "p99")
    for row in rows:
        figures = (row.median_us, row.p99_us, row.pass_median_us, row.pass_p99_us)
        table.add_row(
            row.policy, str(row.running), f"{row.waiting:,}", *(f"{value:,.0f}" for value in figures)
        )
    console.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n")
