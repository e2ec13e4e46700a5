"""Put a finished run into docs/gpu.md: `python -m bros_sglang.evals.gpu.write_docs DIR`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from bros_sglang.evals.gpu.figures import Results
from bros_sglang.evals.gpu.picture import draw_load
from bros_sglang.evals.gpu.store import StoreError, read_results
from bros_sglang.evals.gpu.tables import PICTURES, measured_part

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


class DocsError(ValueError):
    """A page that the measured part cannot be put into; the message says what to change."""


def replaced(page: str, measured: str) -> str:
    """Return the page with what stands between its two marks replaced.

    Raises DocsError where the marks are not there, once each and in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise DocsError(f"the page needs the lines {BEGIN} and {END}, once each and in this order")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{measured.strip()}\n\n{END}{rest.split(END)[1]}"


def write_pictures(run: Path, results: Results, images: Path) -> list[str]:
    """Draw what a run has pictures for into `images`; return their file names."""
    images.mkdir(parents=True, exist_ok=True)
    drawn = []
    if draw_load(results, images / PICTURES["load"]) is not None:
        drawn.append(PICTURES["load"])
    fit = run / "profile" / "bros" / "step-time.png"
    if fit.is_file():
        shutil.copyfile(fit, images / PICTURES["fit"])
        drawn.append(PICTURES["fit"])
    return drawn


def put_into(page: Path, run: Path, *, allow_dry_run: bool = False) -> int:
    """Put a run into a page, pictures beside it; return the number of cells that are done.

    Raises StoreError or DocsError with what to change; then nothing is written.
    """
    about, records = read_results(run)
    results = Results(about, records)
    if results.dry and not allow_dry_run:
        raise DocsError(f"{run} is a dry run on a CPU: its figures mean nothing (--allow-dry-run)")
    text = page.read_text(encoding="utf-8")
    replaced(text, "")  # a page without marks must not cost pictures
    pictures = write_pictures(run, results, page.parent / "images")
    page.write_text(replaced(text, measured_part(results, pictures)), encoding="utf-8")
    return sum(record.status == "done" for record in records)


def main(
    run: Annotated[Path, typer.Argument(help="Output folder of a run.")],
    *,
    page: Annotated[Path, typer.Option(help="The page; its measured part is replaced.")] = Path(
        "docs/gpu.md"
    ),
    allow_dry_run: Annotated[
        bool, typer.Option("--allow-dry-run", help="A dry run too, whose figures mean nothing.")
    ] = False,
) -> None:
    """Replace the measured part of a page, and draw its pictures beside it in images/."""
    try:
        cells = put_into(page, run, allow_dry_run=allow_dry_run)
    except (StoreError, DocsError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{page}: {cells} cells")


if __name__ == "__main__":
    typer.run(main)
