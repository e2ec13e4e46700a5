"""`bros serve`: an SGLang server with the bros policy."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bros_sglang.settings import BrosSettings, flag_of, has_flag

app = typer.Typer(add_completion=False)


def _print_help(value: bool) -> None:
    if not value:
        return
    console = Console()
    console.print(
        "Usage: bros serve --model-path MODEL [flags of bros] [flags of sglang serve]\n", markup=False
    )
    console.print(
        "Starts an SGLang server with --schedule-policy bros. Every flag of `sglang serve` is accepted;"
        " `bros serve --sglang-help` lists them. The settings of bros:\n",
        markup=False,
    )
    table = Table(box=None, padding=(0, 2, 1, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_row("--bros-config FILE", "TOML file with any of the settings below (underscores, no --bros-).")
    for name, field in BrosSettings.model_fields.items():
        if not has_flag(name):
            table.add_row(f"[bros.{name}.…]", f"{field.description} In the config file alone.")
            continue
        default = getattr(field.default, "value", field.default)
        table.add_row(flag_of(name), f"{field.description} Default: {default}.")
    console.print(table, markup=False)
    raise typer.Exit


def _print_sglang_help(value: bool) -> None:
    if not value:
        return
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args

    load_plugins()
    prepare_server_args(["--help"])


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def serve(
    context: typer.Context,
    show_help: Annotated[  # noqa: ARG001 (typer runs the callback)
        bool, typer.Option("--help", "-h", callback=_print_help, is_eager=True)
    ] = False,
    sglang_help: Annotated[  # noqa: ARG001
        bool, typer.Option("--sglang-help", callback=_print_sglang_help, is_eager=True)
    ] = False,
) -> None:
    """Start an SGLang server with the bros policy."""
    given = list(context.args)
    chosen = [flag.split("=", 1)[0] for flag in given]
    if "--schedule-policy" in chosen or "--policy" in chosen:
        typer.echo(
            "bros serve always uses the bros policy: leave --schedule-policy away, or use sglang serve",
            err=True,
        )
        raise typer.Exit(2)
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    load_plugins()
    server_args = prepare_server_args([*given, "--schedule-policy", "bros"])
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)
