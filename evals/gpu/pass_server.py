"""An SGLang server that times its scheduler: `python -m bros_sglang.evals.gpu.pass_server ARGS`.

Takes the arguments of `sglang serve`, bros' included, and an environment variable with the file to write: one
line of JSON per pass with its rows and the time of each part. A second variable turns on counting the waits
for the GPU while the scheduler decides; that takes time itself.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

RECORD_ENV = "BROS_RECORD_PASSES"
COUNT_WAITS_ENV = "BROS_COUNT_WAITS"


class PassRecorder:
    """Times the parts of a pass on a scheduler; stock's and bros' alike."""

    def __init__(self, path: Path, *, count_waits: bool) -> None:
        from bros_sglang.evals.gpu.sync_count import SyncCounter

        self._file = path.open("a", encoding="utf-8", buffering=1 << 16)
        self._counter = SyncCounter(gpu=count_waits)
        self._decided_s = 0.0
        self._waits_seen = 0
        self._open: dict[int, dict[str, Any]] = {}
        self._written_s = 0.0

    def install(self, scheduler: Any) -> None:
        """Wrap the methods of this one scheduler."""
        for name in ("get_next_batch_to_run", "run_batch", "process_batch_result", "on_idle"):
            setattr(scheduler, name, getattr(self, f"_{name}")(getattr(scheduler, name)))

    def _get_next_batch_to_run(self, original: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began_s = time.perf_counter()
            with self._counter.counting("decide"):
                plan = original(*args, **kwargs)
            self._decided_s = time.perf_counter() - began_s
            return plan

        return timed

    def _run_batch(self, original: Any) -> Any:
        def timed(batch: Any, *args: Any, **kwargs: Any) -> Any:
            began_s = time.perf_counter()
            waits = self._counter.waits["decide"]
            waits_here, self._waits_seen = waits - self._waits_seen, waits
            result = original(batch, *args, **kwargs)
            self._open[batch.forward_iter] = {
                "rows": len(batch.reqs),
                "decode": bool(batch.forward_mode.is_decode()),
                "decide_s": self._decided_s,
                "launch_s": time.perf_counter() - began_s,
                "waits": waits_here,
                "launched_s": began_s,
            }
            return result

        return timed

    def _process_batch_result(self, original: Any) -> Any:
        def timed(batch: Any, result: Any) -> Any:
            began_s = time.perf_counter()
            copied = getattr(result, "copy_done", None)
            if copied is not None:
                copied.synchronize()  # the stock method waits for the same event first thing
            done_s = time.perf_counter()
            returned = original(batch, result)
            entry = self._open.pop(batch.forward_iter, None)
            if entry is not None:
                entry |= {
                    "wait_s": done_s - began_s,
                    "process_s": time.perf_counter() - done_s,
                    "done_s": done_s,
                }
                self._file.write(json.dumps({key: _short(value) for key, value in entry.items()}) + "\n")
            self._flush(done_s)
            return returned

        return timed

    def _on_idle(self, original: Any) -> Any:
        def flushed(*args: Any, **kwargs: Any) -> Any:
            self._flush(time.perf_counter())
            return original(*args, **kwargs)

        return flushed

    def _flush(self, now_s: float) -> None:
        if now_s - self._written_s > 0.5:
            self._file.flush()
            self._written_s = now_s


def _short(value: Any) -> Any:
    return round(value, 7) if isinstance(value, float) else value


def run_timed_scheduler(*args: Any, **kwargs: Any) -> None:
    """Stand for `run_scheduler_process` in the scheduler's process: the same, timed."""
    from sglang.srt.managers import scheduler as scheduler_module

    dispatch = scheduler_module.dispatch_event_loop

    def dispatch_timed(scheduler: Any) -> Any:
        count = bool(os.environ.get(COUNT_WAITS_ENV)) and scheduler.device == "cuda"
        PassRecorder(Path(os.environ[RECORD_ENV]), count_waits=count).install(scheduler)
        return dispatch(scheduler)

    scheduler_module.dispatch_event_loop = dispatch_timed
    scheduler_module.run_scheduler_process(*args, **kwargs)


def main(argv: list[str]) -> None:
    """Start the server and stay until it ends."""
    from bros_sglang.evals.step_time.serve import file_named_by, serve

    file_named_by(RECORD_ENV)
    serve(argv, run_timed_scheduler)


if __name__ == "__main__":
    main(sys.argv[1:])
