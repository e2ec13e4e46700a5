"""`bros eval report`: a page, pictures and tables out of result folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bros_sglang.evals.report.page import write_report
from bros_sglang.evals.report.result_set import ReportError, load_all

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Output folders of replay, live or demo runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report; default: report/ in the first folder.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "bros-sglang results",
) -> None:
    """Write one self-contained HTML page, and its pictures as PNG and figures as JSON and CSV beside it.

    Several folders at different RT rates give a capacity curve as well. A report is made again from the
    results at any time, so an earlier one in the folder is replaced.
    """
    try:
        sets = load_all(folders)
        target = out or folders[0] / "report"
        page = write_report(sets, target, title)
    except (ReportError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Report: {page}")
