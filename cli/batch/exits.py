"""From exceptions to one clear line and an exit code."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from bros_sglang.cli.batch.problem import EXIT_REFUSED, EXIT_STOPPED, RefusedError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def clear_errors() -> Iterator[None]:
    """Print what was refused, without a traceback, and exit with the code for it."""
    try:
        yield
    except RefusedError as error:
        typer.echo(f"bros batch: {error}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    except StoppedError as error:
        typer.echo(f"bros batch: {error}", err=True)
        raise typer.Exit(EXIT_STOPPED) from None
