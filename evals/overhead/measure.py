"""Time scheduling passes of the real scheduler with many requests running and many more waiting.

The scheduler is built and driven as in a replay (`evals/replay`), with the forward pass replaced, so that
what is timed is its own code on one core. A policy's own time is what it decides with: for bros the plan,
the window of the queue and its book-keeping; for stock the sorting of the queue. The whole pass
(`get_next_batch_to_run`) is given beside it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bros_sglang.evals.replay.build import SchedulerConfig, build_scheduler
from bros_sglang.evals.replay.policies import policy_spec
from bros_sglang.evals.replay.run import ReplayOptions, replay
from bros_sglang.evals.replay.stub_model import write_stub_model
from bros_sglang.evals.step_time.presets import AFFINE
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass


class Overhead(NamedTuple):
    """Times per pass, microseconds of this machine."""

    policy: str
    running: int
    waiting: int
    median_us: float  # the policy's own time
    p99_us: float
    pass_median_us: float  # SGLang's get_next_batch_to_run, the policy's own time included
    pass_p99_us: float
    passes: int


class _PassTimer:
    """Adds up the policy's own time within each pass."""

    def __init__(self) -> None:
        self.own: list[float] = []
        self.whole: list[float] = []
        self._own_s = 0.0
        self._depth = 0

    def own_work(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, counted as the policy's own time (nested calls once)."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return function(*args, **kwargs)
            self._depth += 1
            started = _NOW()
            try:
                return function(*args, **kwargs)
            finally:
                self._own_s += _NOW() - started
                self._depth -= 1

        return timed

    def whole_pass(self, function: Callable[..., Any], counts: Callable[[], bool]) -> Callable[..., Any]:
        """Return `function`, timed as a whole pass where `counts()` says that the load is there."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            measured = counts()
            self._own_s = 0.0
            started = _NOW()
            result = function(*args, **kwargs)
            if measured:
                self.whole.append(_NOW() - started)
                self.own.append(self._own_s)
            return result

        return timed


_NOW = time.perf_counter  # bound before the replay puts virtual time into the modules

_BROS_OWN = ("_should_defer_prefill", "_park_rows", "_note_outcome", "_stamp_first_tokens", "_learn")


def _percentile_99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


class Loaded(NamedTuple):
    """A scheduler, and the requests that `run` will drive it with."""

    scheduler: Any
    is_there: Callable[[], bool]  # whether the load is on it now
    run: Callable[[], None]


def build_loaded(policy: str, running: int, waiting: int, folder: Path, seconds: float = 60.0) -> Loaded:
    """Build a scheduler for `running` requests with `waiting` more behind them; it may write in `folder`.

    `seconds`: virtual time after which `run` ends, unless somebody ends it before.
    """
    tempfile.tempdir = str(folder)
    spec = policy_spec(policy)
    config = SchedulerConfig(
        model_path=write_stub_model(folder / "model", 2048),
        pool_tokens=running * 600 + 4096,
        max_running_requests=running,
        context_length=2048,
        flags=dict(spec.flags),
    )
    scheduler = build_scheduler(config)
    be = parse_workload(
        f"uniform:prompt=64-128,output=256-400,outstanding={running + waiting}", RequestClass.BE, seed=0
    )
    rt = parse_workload("sharegpt:rate=3,scale=4", RequestClass.RT, seed=0, seconds=seconds)

    def is_there() -> bool:
        enough = len(scheduler.running_batch.reqs) > 0.8 * running
        return enough and len(scheduler.waiting_queue) > 0.8 * waiting

    def run() -> None:
        options = ReplayOptions(seconds=seconds, drain_s=0.0, cpu_s_per_pass=0.0)
        replay(scheduler, [rt, be], AFFINE, spec.tagging, options)
        tempfile.tempdir = None

    return Loaded(scheduler, is_there, run)


def _measure(policy: str, running: int, waiting: int, passes: int, pipe: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="bros-overhead-") as folder:
        loaded = build_loaded(policy, running, waiting, Path(folder))
        scheduler = loaded.scheduler
        timer = _PassTimer()
        queue = scheduler.waiting_queue
        if hasattr(queue, "window"):
            for name in _BROS_OWN:
                setattr(scheduler, name, timer.own_work(getattr(scheduler, name)))
            for name in ("window", "take", "append"):
                setattr(queue, name, timer.own_work(getattr(queue, name)))
            from bros_sglang.scheduler.prefill_adder import BrosPrefillAdder

            for name in ("_best_effort_lacks", "_real_time_fits"):
                setattr(BrosPrefillAdder, name, timer.own_work(getattr(BrosPrefillAdder, name)))
        else:
            scheduler.policy.calc_priority = timer.own_work(scheduler.policy.calc_priority)

        def counts() -> bool:
            if len(timer.whole) >= passes:
                scheduler.gracefully_exit = True
            return loaded.is_there()

        scheduler.get_next_batch_to_run = timer.whole_pass(scheduler.get_next_batch_to_run, counts)
        loaded.run()
    pipe.send(
        Overhead(
            policy,
            running,
            waiting,
            1e6 * median(timer.own),
            1e6 * _percentile_99(timer.own),
            1e6 * median(timer.whole),
            1e6 * _percentile_99(timer.whole),
            len(timer.whole),
        )
    )


def in_own_process(name: str, measure: Callable[..., None], *args: Any) -> Any:
    """Call `measure(*args, pipe)` in a process of its own and return what it sends.

    Raises RuntimeError if that process fails.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(*args, sender))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{name}: the measuring process ended with status {process.exitcode}") from None
    process.terminate()  # SGLang's threads need no farewell
    process.join()
    return result


def measure_overhead(policy: str, running: int, waiting: int, passes: int = 400) -> Overhead:
    """Time `passes` passes in a process of its own. Raises RuntimeError if that process fails."""
    result: Overhead = in_own_process(policy, _measure, policy, running, waiting, passes)
    return result
