"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import orjson
import typer

from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.request import CHAT_URL, COMPLETIONS_URL
from bros_sglang.cli.batch.sources import Format

_UNITS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}

Inputs = Annotated[
    list[str],
    typer.Argument(help="Files, folders of text files, globs, or - for standard input; gzip and zstd too."),
]
InputFormat = Annotated[
    Format | None, typer.Option("--format", help="What the input is, where its name does not tell.")
]
Prompt = Annotated[
    str | None,
    typer.Option(help='Template over rows or text files: "Summarise: {text}". None: OpenAI Batch lines.'),
]
System = Annotated[str | None, typer.Option(help="System message, a template too.")]
IdField = Annotated[
    str | None, typer.Option(help="Column that names rows. Default: custom_id, or file:line without one.")
]
ModelName = Annotated[str | None, typer.Option(help="Model to ask for, whatever the input says.")]
MaxTokens = Annotated[int | None, typer.Option(help="Longest answer, in tokens.", min=1)]
Params = Annotated[
    list[str] | None, typer.Option("--param", help="key=value into each body: temperature=0 (repeatable).")
]
Completions = Annotated[
    bool, typer.Option("--completions", help=f"Send prompts to {COMPLETIONS_URL}, not {CHAT_URL}.")
]


def parse_values(pairs: list[str] | None, option: str) -> dict[str, Any]:
    """Read `key=value` pairs; values are JSON where they can be, else text. Raises RefusedError."""
    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise RefusedError(f"{option} {pair}: write key=value")
        try:
            values[key] = orjson.loads(text)
        except orjson.JSONDecodeError:
            values[key] = text
    return values


def parse_duration(text: str, option: str) -> float:
    """Read `90`, `90s`, `15m`, `24h` or `2d` as seconds. Raises RefusedError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?", text.strip())
    seconds = float(match.group(1)) * _UNITS[match.group(2) or "s"] if match else 0.0
    if seconds <= 0:
        raise RefusedError(f"{option} {text}: write a time such as 90s, 15m, 24h or 2d")
    return seconds


def body_parameters(max_tokens: int | None, params: list[str] | None) -> dict[str, Any]:
    """Return what goes into every templated body. Raises RefusedError."""
    values = parse_values(params, "--param")
    for name in ("stream", "messages", "prompt", "model"):
        if name in values:
            raise RefusedError(f"--param {name}: cannot be set so")
    return values if max_tokens is None else {"max_tokens": max_tokens, **values}
