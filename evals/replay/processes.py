"""One process per replay, forked from one that has SGLang imported; logs go to files."""

from __future__ import annotations

import os
import sys
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, cast

from bros_sglang.evals.replay.job import JobResult, ReplayFailedError, ReplayJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PRELOAD = "bros_sglang.evals.replay.preload"
ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "PYTHONWARNINGS": "ignore",  # importing SGLang without an accelerator warns some ten times
}


def run_job(job: ReplayJob, progress: Callable[[float], None] | None = None) -> JobResult:
    """Run a job in this process, on whichever engine it asks for."""
    if job.policy.engine in ("vllm", "tgi", "free-swap"):
        from bros_sglang.evals.replay.rules import run_on_rules

        return run_on_rules(job, progress)
    from bros_sglang.evals.replay.scheduler_job import run_on_scheduler

    return run_on_scheduler(job, progress)


def _child(job: ReplayJob, log_path: str, pipe: Connection) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, sys.stdout.fileno() if sys.stdout else 1)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        pipe.send(("done", run_job(job, lambda now_s: pipe.send(("progress", now_s)))))
        code = 0
    except BaseException as error:  # noqa: BLE001 (SystemExit too: the parent has to hear of it)
        traceback.print_exc()
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
        code = 1
    pipe.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # SGLang's threads and sockets need no farewell


def run_jobs(
    jobs: Sequence[ReplayJob],
    log_folder: Path,
    *,
    parallel: int = 1,
    progress: Callable[[str, float], None] | None = None,
) -> Iterator[JobResult | ReplayFailedError]:
    """Run each job in its own process, up to `parallel` at a time; yield in the order of `jobs`.

    A job that fails yields its error; the others go on.
    """
    saved = {key: os.environ.get(key) for key in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        context = get_context("forkserver")
        context.set_forkserver_preload([PRELOAD])
        waiting = list(enumerate(jobs))
        running: dict[Connection, tuple[int, Any, Path]] = {}
        ended: dict[int, JobResult | ReplayFailedError] = {}
        yielded = 0
        while waiting or running:
            while waiting and len(running) < parallel:
                index, job = waiting.pop(0)
                log_path = log_folder / f"replay-{job.label.replace('/', '-')}.log"
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(job, str(log_path), sender), daemon=True)
                process.start()
                sender.close()
                running[receiver] = (index, process, log_path)
            for ready in wait(list(running)):
                if not isinstance(ready, Connection):
                    continue
                index, process, log_path = running[ready]
                result = _receive(ready, jobs[index].label, log_path, progress)
                if result is None:
                    continue
                ended[index] = result
                del running[ready]
                process.join()
            while yielded in ended:
                yield ended.pop(yielded)
                yielded += 1
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for key, value in saved.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _receive(
    pipe: Connection, label: str, log_path: Path, progress: Callable[[str, float], None] | None
) -> JobResult | ReplayFailedError | None:
    try:
        kind, value = pipe.recv()
    except EOFError:
        return ReplayFailedError(f"{label}: the replay's process died; see {log_path}")
    if kind == "progress":
        if progress is not None:
            progress(label, value)
        return None
    if kind == "failed":
        return ReplayFailedError(f"{label}: {value} (full log: {log_path})")
    return cast("JobResult", value)
