"""Mooncake traces (FAST'25 release): JSONL whose `hash_ids` name the prompt's 512-token blocks.

Equal ids are equal blocks after equal blocks, so they become real shared prefixes here.
https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from bros_sglang.evals.workloads.csv_rows import token_count
from bros_sglang.evals.workloads.errors import WorkloadError, line_error
from bros_sglang.evals.workloads.trace import TracedRequest

if TYPE_CHECKING:
    from pathlib import Path

BLOCK_TOKENS = 512
KEYS = ("timestamp", "input_length", "output_length", "hash_ids")


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise line_error(path, number, f"not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise line_error(path, number, f"a JSON object was expected, not {type(entry).__name__}")
    for key in KEYS:
        if key not in entry:
            raise line_error(path, number, f"the key {key!r} is missing")
    return entry


def _request(path: Path, number: int, entry: dict[str, Any]) -> TracedRequest:
    timestamp = entry["timestamp"]
    if isinstance(timestamp, bool) or not isinstance(timestamp, (int, float)) or not timestamp >= 0:
        raise line_error(path, number, f"timestamp is {timestamp!r}, not milliseconds since the start")
    prompt = token_count(path, number, "input_length", entry["input_length"], at_least=1)
    output = token_count(path, number, "output_length", entry["output_length"], at_least=0)
    ids = entry["hash_ids"]
    if not isinstance(ids, list) or not all(type(block) is int for block in ids):
        raise line_error(path, number, "hash_ids is not a list of whole numbers")
    if len(ids) * BLOCK_TOKENS < prompt or (len(ids) - 1) * BLOCK_TOKENS >= prompt:
        needed = -(-prompt // BLOCK_TOKENS)
        raise line_error(path, number, f"{len(ids)} hash_ids for {prompt} tokens, which make {needed} blocks")
    prefix = tuple(
        (block, min(BLOCK_TOKENS, prompt - index * BLOCK_TOKENS)) for index, block in enumerate(ids)
    )
    return TracedRequest(timestamp / 1000.0, prompt, max(1, output), prefix)


def load(path: Path) -> list[TracedRequest]:
    """Read a trace; arrival times count from its first request, in order."""
    requests: list[TracedRequest] = []
    try:
        with path.open("rb") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    requests.append(_request(path, number, _parse(path, number, line)))
    except OSError as error:
        raise WorkloadError(f"cannot read {path}: {error.strerror}") from error
    if not requests:
        raise WorkloadError(f"{path} holds no requests")
    requests.sort(key=lambda request: request.arrival_s or 0.0)
    start_s = requests[0].arrival_s or 0.0
    return [request._replace(arrival_s=(request.arrival_s or 0.0) - start_s) for request in requests]
