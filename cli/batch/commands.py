"""The commands of `bros batch`."""

from __future__ import annotations

import typer

from bros_sglang.cli.batch.cost_command import cost
from bros_sglang.cli.batch.run_command import retry, run
from bros_sglang.cli.batch.status_command import status
from bros_sglang.cli.batch.validate_command import validate

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="Work through an offline corpus with best-effort requests.",
)
for command in (run, status, retry, validate, cost):
    app.command()(command)
