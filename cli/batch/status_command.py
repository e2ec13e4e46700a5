"""`bros batch status`: what a folder holds, while a run writes there or after."""

from pathlib import Path
from typing import Annotated

import orjson
import typer

from bros_sglang.cli.batch.exits import clear_errors
from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.recovery import count_lines
from bros_sglang.cli.batch.run_folder import RunFolder
from bros_sglang.cli.batch.run_record import read_record
from bros_sglang.cli.batch.summary import summary_lines


def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how far a run is, from its files."""
    with clear_errors():
        run_folder = RunFolder(folder)
        record = read_record(run_folder.record)
        if record is None:
            raise RefusedError(f"{folder}: no run.json, so there was no run here")
        running = run_folder.is_locked()
        if record.state == "running" and not running:
            record.state, record.reason = "stopped", "killed: the same command goes on"
        # The files are the truth; run.json is a few seconds behind, or as old as the kill.
        error_lines = count_lines(run_folder.errors)
        counts = record.counts
        counts.ok = count_lines(run_folder.output)
        counts.rejected = min(counts.rejected, error_lines)
        counts.failed = error_lines - counts.rejected
        if json:
            result = record.model_dump(mode="json")
            typer.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
            return
        for line in summary_lines(record, folder):
            typer.echo(line)
