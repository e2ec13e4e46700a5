"""The `bros` program: one lazily imported module per subcommand.

A subcommand is a line in `COMMANDS`: its module must define `app`, a `typer.Typer`. Only the module of the
command that runs is imported, so `bros --help` is quick and an extra that is not installed costs only the
commands that need it.
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.main import get_command

from bros_sglang._version import __version__


class Command(NamedTuple):
    """Where a subcommand lives."""

    module: str  # defines `app`
    summary: str  # one line for `bros --help`
    extra: str | None = None  # the optional dependency set that it needs


COMMANDS: dict[str, Command] = {
    "serve": Command("bros_sglang.cli.serve", "Start an SGLang server with the bros policy."),
    "doctor": Command(
        "bros_sglang.cli.doctor", "Check this installation: versions, seams, platform, classes."
    ),
    "demo": Command("bros_sglang.cli.demo", "Show stock SGLang and bros under the same mixed load.", "eval"),
    "model": Command("bros_sglang.cli.model", "Build a tiny random-weight model for tests and demos."),
    "batch": Command(
        "bros_sglang.cli.batch", "Work through an offline corpus with best-effort requests.", "batch"
    ),
    "top": Command("bros_sglang.cli.top", "Watch a running bros server."),
    "monitoring": Command(
        "bros_sglang.cli.monitoring", "Write Prometheus and Grafana files for a bros server."
    ),
    "eval": Command("bros_sglang.cli.eval", "Replay, measure and report.", "eval"),
}


class LazyGroup(TyperGroup):
    """A command group that imports a subcommand's module when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name the commands in the order of `COMMANDS`."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 (typer's signature)
        """Import and return one command, or None where there is no such name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        try:
            module = importlib.import_module(entry.module)
        except ModuleNotFoundError as error:
            if entry.extra is None or (error.name or "").startswith("bros_sglang"):
                raise
            typer.echo(
                f"bros {cmd_name} needs the package {error.name!r}, which is not installed: "
                f"pip install 'bros-sglang[{entry.extra}]'",
                err=True,
            )
            raise SystemExit(2) from error
        command = get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands without importing any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"bros-sglang {__version__}")
        raise typer.Exit


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode=None, add_completion=False)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Real-time and best-effort LLM requests on one SGLang engine."""


def main() -> None:
    """Run the `bros` program."""
    app()


if __name__ == "__main__":
    main()
