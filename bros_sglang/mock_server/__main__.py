"""`python -m bros_sglang.mock_server`: serve until interrupted."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer
import uvloop

from bros_sglang.mock_server.faults import FaultPlan
from bros_sglang.mock_server.server import MockServer, MockSettings


def main(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 18_080,
    model: Annotated[str, typer.Option(help="Served model name.")] = "mock",
    latency_ms: Annotated[float, typer.Option(help="Service time of one request.", min=0)] = 0.0,
    slots: Annotated[int | None, typer.Option(help="Requests served at once.", min=1)] = None,
    max_waiting: Annotated[int | None, typer.Option(help="Longer queues answer 429.", min=0)] = None,
    retry_after_s: Annotated[float, typer.Option(help="What 429 and 503 ask for.", min=0)] = 0.05,
    fault_rate: Annotated[float, typer.Option(help="Share of requests hurt.", min=0, max=1)] = 0.0,
    faults: Annotated[str, typer.Option(help="Faults drawn from.")] = "500,429,cut,cut-mid,broken",
    seed: Annotated[int, typer.Option(help="Seed of the faults.")] = 0,
    api_key: Annotated[str | None, typer.Option(help="Refuse requests without it.")] = None,
    bros: Annotated[bool, typer.Option("--bros", help="Serve a moving /bros/status.")] = False,
) -> None:
    """Serve a mock OpenAI API for tests and measurements of clients."""
    try:
        plan = FaultPlan(rate=fault_rate, kinds=tuple(faults.split(",")), seed=seed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    settings = MockSettings(
        model=model,
        faults=plan,
        latency_s=latency_ms / 1000,
        slots=slots,
        max_waiting=max_waiting,
        retry_after_s=retry_after_s,
        bros=bros,
        api_key=api_key,
    )
    uvloop.run(_serve(settings, host, port))


async def _serve(settings: MockSettings, host: str, port: int) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopped.set)
    async with MockServer(settings, host, port) as server:
        typer.echo(f"mock server on {server.url}")
        await stopped.wait()


if __name__ == "__main__":
    typer.run(main)
