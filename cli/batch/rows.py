"""Answer rows that are in memory: what a pipeline's stage needs (Ray Data, a notebook)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from bros_sglang.cli.batch.http_backend import HttpBackend
from bros_sglang.cli.batch.preparation import prepare
from bros_sglang.cli.batch.problem import StoppedError
from bros_sglang.cli.batch.progress import QuietDisplay
from bros_sglang.cli.batch.run_folder import RunFolder
from bros_sglang.cli.batch.session import work
from bros_sglang.cli.batch.settings import RunSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def answer_rows(
    rows: Sequence[Mapping[str, Any]],
    endpoints: Sequence[str],
    *,
    prompt: str,
    api_key: str | None = None,
    **settings: Any,
) -> list[tuple[str | None, str | None]]:
    """Return (answer, error) per row, in order; one of the two is None.

    Retries, adaptive concurrency, tagging and prefix grouping are those of `bros batch run`; `settings` are
    fields of `RunSettings`. Blocks until all rows have ended. Raises RefusedError where it cannot start as
    asked and StoppedError where the servers stay away.
    """
    with tempfile.TemporaryDirectory(prefix="bros-batch-") as name:
        folder = Path(name)
        lines = folder / "rows.jsonl"
        with lines.open("wb") as file:
            for number, row in enumerate(rows):
                file.write(orjson.dumps({**row, "custom_id": str(number)}) + b"\n")
        chosen = RunSettings.model_validate(
            {"inputs": [str(lines)], "endpoints": list(endpoints), "prompt": prompt, **settings}
        )
        prepared = prepare(RunFolder(folder / "results"), chosen)
        backends = [HttpBackend(url, api_key=api_key, timeout_s=chosen.timeout_s) for url in endpoints]
        outcome = uvloop.run(work(prepared, backends, QuietDisplay()))
        prepared.folder.close()
        if outcome.state != "finished":
            raise StoppedError(outcome.reason or outcome.state)
        return _answers(prepared.folder, len(rows))


def _answers(folder: RunFolder, count: int) -> list[tuple[str | None, str | None]]:
    answers: list[tuple[str | None, str | None]] = [(None, "no answer")] * count
    for path in (folder.output, folder.errors):
        for line in path.read_bytes().splitlines():
            record = orjson.loads(line)
            if record["custom_id"] is None:
                continue
            if record["error"] is not None:
                answers[int(record["custom_id"])] = (None, record["error"]["message"])
                continue
            choice = record["response"]["body"]["choices"][0]
            message = choice.get("message")
            answers[int(record["custom_id"])] = (message["content"] if message else choice["text"], None)
    return answers
