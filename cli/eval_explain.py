"""`bros eval explain`: why the scheduler did what it did, from a decision log."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(add_completion=False)


def _read(log: Path) -> list[dict[str, Any]]:
    records = []
    try:
        with log.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    records.append(json.loads(line))
                except json.JSONDecodeError as error:
                    if not line.endswith("\n"):
                        break  # the server is writing this line
                    typer.echo(f"{log}:{number}: not a decision record: {error}", err=True)
                    raise typer.Exit(1) from error
    except OSError as error:
        typer.echo(f"{log}: cannot be read: {error.strerror}", err=True)
        raise typer.Exit(1) from error
    if not records:
        typer.echo(f"{log}: no decisions in it; start the server with --bros-decision-log {log}", err=True)
        raise typer.Exit(1)
    return records


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:,.1f}"


def _table(records: list[dict[str, Any]], start_s: float) -> Table:
    table = Table(
        "t s",
        "mode",
        "RT/BE rows",
        "parked",
        "RT/BE waiting",
        "RT/BE prefill",
        "lent ms",
        "ms (pred.)",
        "why",
    )
    for record in records:
        why = record["bound"]
        if record["preempted"]:
            why += f"; preempted {len(record['preempted'])}"
        if record["refused"]:
            why += f"; next real-time request: {record['refused']}"
        table.add_row(
            f"{record['now_s'] - start_s:.3f}",
            record["mode"],
            f"{record['rt_rows']}/{record['be_rows']}",
            str(record["parked"]),
            f"{record['rt_waiting']}/{record['be_waiting']}",
            f"{record['rt_prefilled']}/{record['be_prefilled']}",
            _ms(record["lendable_s"]),
            f"{_ms(record['actual_s'])} ({_ms(record['predicted_s'])})",
            why,
        )
    return table


@app.command()
def explain(
    log: Annotated[Path, typer.Argument(help="Decision log of a server (`--bros-decision-log FILE`).")],
    at: Annotated[float | None, typer.Option(help="Seconds from the first record.")] = None,
    request: Annotated[
        str | None, typer.Option(help="Request id: the steps that prefilled or preempted it.")
    ] = None,
    steps: Annotated[int, typer.Option(help="How many steps to show.", min=1)] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records themselves.")] = False,
) -> None:
    """Show the decisions around a moment or of a request; without either, a summary."""
    records = _read(log)
    start_s = next((record["now_s"] for record in records if record["now_s"] > 0), 0.0)
    if request is not None:
        chosen = [r for r in records if request in r["rt_admitted"] or request in r["preempted"]]
        if not chosen:
            typer.echo(
                f"request {request} was neither prefilled as real-time nor preempted in {log}", err=True
            )
            raise typer.Exit(1)
    elif at is not None:
        nearest = min(range(len(records)), key=lambda i: abs(records[i]["now_s"] - start_s - at))
        chosen = records[max(0, nearest - steps // 2) : nearest + (steps + 1) // 2]
    else:
        chosen = []
    console = Console()
    if as_json:
        typer.echo("\n".join(json.dumps(record) for record in (chosen or records)))
        return
    if chosen:
        console.print(_table(chosen[:steps] if request is None else chosen, start_s))
        return
    ended = [record for record in records if record["actual_s"]]
    busy_s = sum(record["actual_s"] for record in ended)
    console.print(f"{len(records):,} steps, {busy_s:,.1f} s of engine time")
    table = Table("what limited best-effort work", "steps", "share of time")
    steps_by, time_by = Counter[str](), Counter[str]()
    for record in ended:
        steps_by[record["bound"]] += 1
        time_by[record["bound"]] += record["actual_s"]
    for bound, seconds in time_by.most_common():
        table.add_row(bound, f"{steps_by[bound]:,}", f"{seconds / busy_s:.1%}")
    console.print(table)
    errors = sorted(abs(record["predicted_s"] / record["actual_s"] - 1) for record in ended)
    if errors:
        console.print(
            f"step-time prediction error: median {errors[len(errors) // 2]:.1%}, "
            f"p95 {errors[int(0.95 * (len(errors) - 1))]:.1%}"
        )
    preempted = sum(len(record["preempted"]) for record in records)
    console.print(
        f"preemptions: {preempted:,}; steps in which a real-time request found no tokens: "
        f"{sum(record['refused'] == 'NO_TOKEN' for record in records):,}"
    )
