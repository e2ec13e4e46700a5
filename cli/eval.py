"""`bros eval`: replay, measure, report. Each subcommand is a module that is imported when it is asked for."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from bros_sglang.cli.app import Command

COMMANDS: dict[str, Command] = {
    "replay": Command(
        "bros_sglang.cli.eval_replay", "Run traffic through the real scheduler in virtual time."
    ),
    "live": Command("bros_sglang.cli.eval_live", "Run the same traffic against live servers."),
    "report": Command("bros_sglang.cli.eval_report", "Make a page, pictures and tables of results."),
    "profile": Command("bros_sglang.cli.eval_profile", "Fit a step-time model to a live server's steps."),
    "validate": Command("bros_sglang.cli.eval_validate", "Hold a live server against its replay."),
    "memory": Command("bros_sglang.cli.eval_memory", "Measure KV allocation, eviction and copies."),
    "overhead": Command("bros_sglang.cli.eval_overhead", "Time the policy's own work per pass."),
    "explain": Command("bros_sglang.cli.eval_explain", "Say why the scheduler did what it did."),
}


class EvalGroup(TyperGroup):
    """A command group that imports a subcommand's module when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name the commands that this installation has."""
        del ctx
        return [name for name, entry in COMMANDS.items() if find_spec(entry.module) is not None]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return one command, or None where there is no such name."""
        del ctx
        entry = COMMANDS.get(cmd_name)
        if entry is None or find_spec(entry.module) is None:
            return None
        try:
            module = importlib.import_module(entry.module)
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("bros_sglang"):
                raise
            typer.echo(
                f"bros eval {cmd_name} needs the package {error.name!r}, which is not installed: "
                "pip install 'bros-sglang[eval]'",
                err=True,
            )
            raise SystemExit(2) from error
        command = get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])


app = typer.Typer(cls=EvalGroup, no_args_is_help=True, rich_markup_mode=None, add_completion=False)


@app.callback()
def _root() -> None:
    """Replay, measure and report."""
