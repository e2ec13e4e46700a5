"""`bros doctor`: whether bros can run on this installation, and with what."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(add_completion=False)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Check versions and every seam that bros uses; name the classes that would serve. Starts nothing."""
    from bros_sglang import seams
    from bros_sglang.inspection import inspect_installation

    facts = inspect_installation()
    if as_json:
        typer.echo(facts.model_dump_json(indent=2))
        raise typer.Exit(1 if facts.problems else 0)
    console = Console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("bros-sglang", facts.bros_version)
    table.add_row("SGLang", f"{facts.sglang_version} (supported: {facts.supported_sglang})")
    table.add_row("Python, torch", f"{facts.python_version}, {facts.torch_version}")
    table.add_row("plugin", "registered" if facts.plugin_registered else "NOT registered")
    table.add_row(
        "sglang launch_server", "available" if facts.launch_shim_installed else "shim not installed"
    )
    table.add_row("platform", facts.platform)
    table.add_row("scheduler", facts.scheduler)
    table.add_row("schedule policy", facts.schedule_policy)
    table.add_row("prefill adder", facts.prefill_adder)
    for pages, name in facts.allocators.items():
        table.add_row(f"allocator, {pages}", name)
    table.add_row("radix cache", facts.radix_cache)
    table.add_row("seams", f"{facts.seams_checked - len(facts.problems)} of {facts.seams_checked} in place")
    table.add_row("not supported with", ", ".join(facts.refused_flags))
    console.print(table)
    if facts.problems:
        typer.echo(seams.explain(facts.problems), err=True)
        raise typer.Exit(1)
    console.print("[green]bros can run here.[/green]")
