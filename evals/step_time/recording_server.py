"""An SGLang server that records its passes: `python -m bros_sglang.evals.step_time.recording_server ARGS`.

Takes the arguments of `sglang serve`, bros' included, and one environment variable with the file to write.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

RECORD_ENV = "BROS_RECORD_STEPS"


def run_recording_scheduler(*args: Any, **kwargs: Any) -> None:
    """Stand for `run_scheduler_process` in the scheduler's process: the same, recorded."""
    from sglang.srt.managers import scheduler as scheduler_module

    from bros_sglang.evals.step_time.record import install

    install(scheduler_module.Scheduler, Path(os.environ[RECORD_ENV]))
    scheduler_module.run_scheduler_process(*args, **kwargs)


def main(argv: list[str]) -> None:
    """Start the server and stay until it ends."""
    if not os.environ.get(RECORD_ENV):
        raise SystemExit(f"error: set {RECORD_ENV} to the file that the steps go to")
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args

    load_plugins()
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.managers.tokenizer_manager import TokenizerManager
    from sglang.srt.utils import kill_process_tree

    from bros_sglang.evals.step_time.request_times import install_in_tokenizer, requests_path

    install_in_tokenizer(TokenizerManager, requests_path(Path(os.environ[RECORD_ENV]), "tokenizer"))
    server_args = prepare_server_args(argv)
    server_args.resolve_once()
    try:
        launch_server(server_args, run_scheduler_process_func=run_recording_scheduler)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


if __name__ == "__main__":
    main(sys.argv[1:])
