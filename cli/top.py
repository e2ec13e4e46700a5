"""`bros top URL`: watch a running bros server."""

import json as json_module
import sys
import time
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live
from rich.text import Text

from bros_sglang.cli.top_view import render
from bros_sglang.status import BrosStatus

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class NotBrosError(Exception):
    """The URL answers, but not as a bros server; the text says what to do."""


@app.command()
def top(
    url: Annotated[str, typer.Argument(help="Base URL of the server, such as http://localhost:30000.")],
    *,
    interval: Annotated[float, typer.Option(help="Seconds between two readings.", min=0.1)] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one reading and exit.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON, a line per reading.")] = False,
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Key for the server.")] = None,
) -> None:
    """Show classes, attainment, slack, KV and preemptions of a bros server, live."""
    base = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    with httpx.Client(base_url=base, timeout=5.0, headers=headers) as client:
        try:
            status = fetch(client)
            if once:
                _print(status, json=json)
            elif json:
                _stream_json(client, status, interval)
            else:
                _watch(client, status, interval)
        except NotBrosError as error:
            typer.echo(f"bros top: {error}", err=True)
            raise typer.Exit(2) from None
        except httpx.HTTPError as error:
            typer.echo(f"bros top: {base}: {error}; is the server running?", err=True)
            raise typer.Exit(3) from None
        except KeyboardInterrupt:
            return


def fetch(client: httpx.Client) -> BrosStatus:
    """Take a reading. Raises httpx.HTTPError where nobody answers, NotBrosError for another server."""
    response = client.get("/bros/status")
    base = str(client.base_url).rstrip("/")
    if response.status_code in (401, 403):
        raise NotBrosError(f"{base}: HTTP {response.status_code}; give --api-key or set OPENAI_API_KEY")
    if response.status_code != 200:
        raise NotBrosError(
            f"{base} is not a bros server (GET /bros/status answered HTTP {response.status_code}); "
            "start it with `bros serve`, or add --schedule-policy bros to its command"
        )
    try:
        return BrosStatus.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise NotBrosError(
            f"{base}: /bros/status is not readable by this version ({where}: {first['msg']}); "
            "upgrade bros-sglang here"
        ) from None


def as_json(status: BrosStatus) -> str:
    """Return a reading as one line: the server's own fields, and `totals` over its schedulers."""
    totals = {
        "rt": status.rt.model_dump(),
        "be": status.be.model_dump(),
        "tightest_slack_s": status.tightest_slack_s,
        "preemptions": status.preemptions.model_dump(),
    }
    return json_module.dumps({**status.model_dump(mode="json"), "totals": totals})


def _print(status: BrosStatus, *, json: bool) -> None:
    if json:
        typer.echo(as_json(status))
    else:
        console = Console()
        console.print(render(status, console.width))


def _stream_json(client: httpx.Client, status: BrosStatus, interval: float) -> None:
    while True:
        sys.stdout.write(as_json(status) + "\n")
        sys.stdout.flush()
        time.sleep(interval)
        status = fetch(client)


def _watch(client: httpx.Client, status: BrosStatus, interval: float) -> None:
    console = Console()
    with Live(render(status, console.width), console=console, auto_refresh=False, screen=True) as live:
        while True:
            live.refresh()
            time.sleep(interval)
            try:
                status = fetch(client)
            except httpx.HTTPError as error:
                lost = Text(f"no answer from {client.base_url}: {error}; trying again", style="red")
                live.update(render(status, console.width, note=lost))
                continue
            live.update(render(status, console.width))
