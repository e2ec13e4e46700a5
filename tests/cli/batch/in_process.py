"""One start of a run without the command line."""

from pathlib import Path

import uvloop

from bros_sglang.cli.batch.http_backend import HttpBackend
from bros_sglang.cli.batch.preparation import prepare
from bros_sglang.cli.batch.progress import QuietDisplay
from bros_sglang.cli.batch.run_folder import RunFolder
from bros_sglang.cli.batch.session import Outcome, work
from bros_sglang.cli.batch.settings import RunSettings


def run_batch(inputs: list[str], out: Path, *urls: str, **settings: object) -> Outcome:
    """Run to the end, and let the folder go."""
    chosen = RunSettings.model_validate({"inputs": inputs, "endpoints": list(urls), **settings})
    prepared = prepare(RunFolder(out), chosen)
    backends = [HttpBackend(url, api_key=None, timeout_s=chosen.timeout_s) for url in urls]
    try:
        return uvloop.run(work(prepared, backends, QuietDisplay()))
    finally:
        prepared.folder.close()
