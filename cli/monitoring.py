"""`bros monitoring`: write Prometheus and Grafana files for a bros server into a folder."""

from __future__ import annotations

import re
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_TARGETS = 'targets: ["localhost:30000"]'  # in prometheus.yml
_ADDRESS = re.compile(r"^(?:https?://)?([\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})/?$")


@app.command()
def monitoring(
    folder: Annotated[Path, typer.Argument(help="Where to write the files; must not exist yet.")],
    server: Annotated[
        list[str] | None,
        typer.Option(help="Address of a server to watch, HOST:PORT; repeatable. Default localhost:30000."),
    ] = None,
) -> None:
    """Write a Prometheus configuration, alerts, a Grafana dashboard and a compose file."""
    targets = [_address(text) for text in server or ["localhost:30000"]]
    if folder.exists():
        typer.echo(f"bros monitoring: {folder} is there already; choose another folder", err=True)
        raise typer.Exit(2)
    try:
        with as_file(files("bros_sglang.monitoring")) as source:
            shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
        config = folder / "prometheus.yml"
        listed = ", ".join(f'"{target}"' for target in targets)
        config.write_text(
            config.read_text(encoding="utf-8").replace(_TARGETS, f"targets: [{listed}]"), encoding="utf-8"
        )
    except OSError as error:
        typer.echo(f"bros monitoring: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(2) from None
    typer.echo(
        f"Written to {folder}, watching {', '.join(targets)} (start it with --enable-metrics).\n"
        f"  cd {folder} && docker compose up -d    # Prometheus on :9090, Grafana on :3000\n"
        "Without Docker: prometheus --config.file=prometheus.yml there, and import "
        "grafana/dashboards/bros.json into a Grafana."
    )


def _address(text: str) -> str:
    found = _ADDRESS.match(text)
    if found is None or not 0 < int(found[2]) < 65536:
        typer.echo(f"bros monitoring: --server {text}: write HOST:PORT, such as localhost:30000", err=True)
        raise typer.Exit(2)
    return f"{found[1]}:{found[2]}"
