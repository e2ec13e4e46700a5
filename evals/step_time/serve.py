"""Start `sglang serve` with a scheduler function of our own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence


def serve(
    argv: Sequence[str],
    run_scheduler: Callable[..., None],
    before_launch: Callable[[], None] = lambda: None,
) -> None:
    """Start the server and stay until it ends.

    argv: the arguments of `sglang serve`, bros' included. run_scheduler: stands for SGLang's
    `run_scheduler_process` in the scheduler's process. before_launch: called once plugins are loaded.
    """
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args

    load_plugins()
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.utils import kill_process_tree

    before_launch()
    server_args = prepare_server_args(list(argv))
    server_args.resolve_once()
    try:
        launch_server(server_args, run_scheduler_process_func=run_scheduler)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


def file_named_by(variable: str) -> str:
    """Return what an environment variable says, or stop with what to set."""
    value = os.environ.get(variable)
    if not value:
        raise SystemExit(f"error: set {variable} to the file to write")
    return value
