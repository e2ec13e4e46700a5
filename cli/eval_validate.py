"""`bros eval validate`: is the replay right? A live server on this machine against its replay."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.policy_flags import choose
from bros_sglang.evals.live.server_process import terminate_as_interrupt
from bros_sglang.evals.metrics.output_folder import OutputFolderError, claim_folder
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.metrics.write import write_requests
from bros_sglang.evals.replay.job import ReplayFailedError
from bros_sglang.evals.replay.validate import (
    PROFILE_S,
    TOLERANCE,
    Comparison,
    compare,
    measure_policy,
)
from bros_sglang.evals.replay.validation_picture import draw_validation
from bros_sglang.evals.step_time.fit import FitError
from bros_sglang.evals.tiny_model import build_tiny_model

if TYPE_CHECKING:
    from collections.abc import Sequence

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def validate(
    out: Annotated[Path, typer.Option(help="Folder for validation.json, its picture and the logs.")],
    policies: Annotated[str, typer.Option(help="Policies to compare, separated by commas.")] = "fcfs,bros",
    seconds: Annotated[float, typer.Option(help="Length of each measured run.", min=5.0)] = 25.0,
    rounds: Annotated[int, typer.Option(help="Measured runs per workload, in turn.", min=1)] = 3,
    profile_seconds: Annotated[
        float, typer.Option(help="Length of the profile before the first round and after each.", min=8.0)
    ] = PROFILE_S,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")] = False,
) -> None:
    """Serve a tiny model on this machine's CPU, replay the same requests, and compare.

    "rounds ±" is how far the live rounds lie from their own median. Ends with status 1 where a figure of
    the replay is off by more than 15 %.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        console.width = 120
    comparisons: list[Comparison] = []
    try:
        chosen = choose(policies)
        claim_folder(out, {"command": ["bros", *sys.argv[1:]]}, overwrite=overwrite)
        with tempfile.TemporaryDirectory() as scratch, terminate_as_interrupt(), console.status("") as status:
            tiny = build_tiny_model(Path(scratch) / "tiny-llama")
            for policy in chosen:
                measured = measure_policy(
                    policy.name,
                    tiny,
                    out,
                    seconds=seconds,
                    rounds=rounds,
                    profile_s=profile_seconds,
                    on_phase=status.update,
                )
                comparisons += compare(measured, out, seconds=seconds, on_phase=status.update)
                _write(out, comparisons)
    except (LiveError, FitError, OutputFolderError, ReplayFailedError) as error:
        console.print(f"bros eval validate: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(2) from error
    rows = [row for comparison in comparisons for row in comparison.rows()]
    console.print(_table(rows))
    stalled = max(comparison.stalled_share for comparison in comparisons)
    console.print(f"time in passes that the machine held up: up to {stalled:.1%}", highlight=False)
    off = sum(not row["within"] for row in rows)
    console.print(f"{len(rows) - off} of {len(rows)} figures within {TOLERANCE:.0%}", highlight=False)
    raise typer.Exit(1 if off else 0)


def _write(out: Path, comparisons: Sequence[Comparison]) -> None:
    rows = [row for comparison in comparisons for row in comparison.rows()]
    results = [
        {
            "policy": comparison.policy,
            "load": comparison.load.name,
            "rt": comparison.load.rt,
            "be": comparison.load.be,
            "stalled_share": comparison.stalled_share,
            "live": [compute_result(run) for run in comparison.live],
            "replay": [compute_result(run) for run in comparison.replayed],
        }
        for comparison in comparisons
    ]
    text = orjson.dumps({"figures": rows, "results": results}, option=orjson.OPT_INDENT_2)
    (out / "validation.json").write_bytes(text + b"\n")
    write_requests(
        out,
        [
            (f"{comparison.policy} {comparison.load.name} {kind}", number + 1, run.records)
            for comparison in comparisons
            for kind, runs in (("live", comparison.live), ("replay", comparison.replayed))
            for number, run in enumerate(runs)
        ],
    )
    draw_validation(comparisons, out / "validation.png")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None)
    for column in ("load", "policy", "figure"):
        table.add_column(column)
    for column in ("live", "rounds ±", "replay", "ratio", "own passes"):
        table.add_column(column, justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(
            row["load"],
            row["policy"],
            row["figure"],
            _number(row["live"], ",.1f"),
            _number(row["live_spread"], ".0%"),
            _number(row["replay"], ",.1f"),
            _number(row["ratio"], ".2f"),
            _number(row["ratio_own_steps"], ".2f"),
            "" if row["within"] else "off",
        )
    return table


if __name__ == "__main__":
    app()
