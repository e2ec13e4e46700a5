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
    from bros_sglang.evals.step_time.serve import file_named_by, serve

    path = Path(file_named_by(RECORD_ENV))

    def record_in_tokenizer() -> None:
        from sglang.srt.managers.tokenizer_manager import TokenizerManager

        from bros_sglang.evals.step_time.request_times import install_in_tokenizer, requests_path

        install_in_tokenizer(TokenizerManager, requests_path(path, "tokenizer"))

    serve(argv, run_recording_scheduler, record_in_tokenizer)


if __name__ == "__main__":
    main(sys.argv[1:])
