"""Input files and result files of batch runs."""

from pathlib import Path
from typing import Any

import orjson


def request_line(custom_id: Any, text: str = "hello", **changes: Any) -> dict[str, Any]:
    body = {"model": "mock", "messages": [{"role": "user", "content": text}], "max_tokens": 8}
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    line.update(changes)
    return {key: value for key, value in line.items() if value is not ...}


def write_lines(path: Path, lines: list[Any]) -> Path:
    """Write JSON lines; bytes and str go in as they are."""
    raw = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def results(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """Return output lines, error lines and run.json."""
    record = orjson.loads((folder / "run.json").read_bytes())
    return read_lines(folder / "output.jsonl"), read_lines(folder / "errors.jsonl"), record
