"""`bros model`: build a tiny model to try the server with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Build a tiny random-weight model for tests and demos.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Build a tiny random-weight model for tests and demos."""


@app.command()
def tiny(
    directory: Annotated[Path, typer.Argument(help="Where to write config, tokenizer and weights.")],
    layers: Annotated[int, typer.Option(help="Transformer layers.", min=1)] = 2,
    hidden: Annotated[int, typer.Option(help="Hidden size; a multiple of 8 × heads.", min=16)] = 128,
    context: Annotated[int, typer.Option(help="Longest context, tokens.", min=128)] = 8192,
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
) -> None:
    """Write a random-weight Llama (1,024 tokens of vocabulary) and its tokenizer; downloads nothing."""
    from bros_sglang.evals.tiny_model import build_tiny_model

    try:
        build_tiny_model(directory, layers=layers, hidden=hidden, context=context, seed=seed)
    except FileExistsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Tiny Llama written to {directory}. Try: bros serve --model-path {directory}")
