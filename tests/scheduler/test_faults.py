"""What goes wrong in the field, against the real scheduler in virtual time: everybody still finishes."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from bros_sglang.evals.replay.processes import ENVIRONMENT, PRELOAD
from bros_sglang.evals.step_time.presets import AFFINE
from bros_sglang.evals.workloads.request import ListedWorkload, WorkloadRequest
from bros_sglang.request_class import RequestClass

pytestmark = pytest.mark.server  # builds SGLang's scheduler

Inject = Callable[[Any], None]


@dataclass(frozen=True)
class Slower:
    """Steps that take `times` as long from the first to the last step of a spell."""

    first: int
    last: int
    times: float
    blocking: bool = AFFINE.blocking

    def step_s(self, step: Any) -> float:
        number = next(_STEPS)
        return AFFINE.step_s(step) * (self.times if self.first <= number < self.last else 1.0)


_STEPS = iter(range(1 << 40))


def requests(
    request_class: RequestClass,
    count: int,
    *,
    every_s: float = 0.0,
    prompt: int = 100,
    output: int = 20,
    ttft_ms: float = 400.0,
    tpot_ms: float = 50.0,
    from_s: float = 0.0,
) -> ListedWorkload:
    return ListedWorkload(
        "listed",
        tuple(
            WorkloadRequest(
                f"{request_class}-{index}",
                request_class,
                from_s + index * every_s,
                prompt,
                output,
                output,
                ttft_ms=ttft_ms,
                tpot_ms=tpot_ms,
            )
            for index in range(count)
        ),
    )


def _run(workloads: Any, inject: Inject | None, step_time: Any, seconds: float, pool: int, pipe: Any) -> None:
    from bros_sglang.evals.replay.arrivals import Tagging
    from bros_sglang.evals.replay.build import SchedulerConfig, build_scheduler
    from bros_sglang.evals.replay.run import ReplayOptions, replay
    from bros_sglang.evals.replay.stub_model import write_stub_model

    try:
        with tempfile.TemporaryDirectory() as folder:
            scheduler = build_scheduler(
                SchedulerConfig(
                    model_path=write_stub_model(Path(folder), 2048),
                    pool_tokens=pool,
                    max_running_requests=64,
                    context_length=2048,
                    flags={"schedule-policy": "bros", "chunked-prefill-size": 512},
                )
            )
            if inject is not None:
                inject(scheduler)
            outcome = replay(
                scheduler, workloads, step_time, Tagging(bros_tag=True), ReplayOptions(seconds=seconds)
            )
        pipe.send([(log.request, list(log.token_s)) for log in outcome.logs])
    except BaseException as error:  # noqa: BLE001
        pipe.send(f"{type(error).__name__}: {error}")
    os._exit(0)


def run(
    *workloads: ListedWorkload,
    inject: Inject | None = None,
    step_time: Any = AFFINE,
    seconds: float = 600.0,
    pool: int = 8192,
) -> dict[str, tuple[WorkloadRequest, list[float]]]:
    """Return each request with the times of its tokens."""
    os.environ.update(ENVIRONMENT)
    context = get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(workloads, inject, step_time, seconds, pool, sender))
    process.start()
    sender.close()
    answer = receiver.recv()
    process.join()
    assert not isinstance(answer, str), answer
    return {request.rid: (request, times) for request, times in answer}


def unfinished(served: dict[str, tuple[WorkloadRequest, list[float]]]) -> list[str]:
    return [rid for rid, (request, times) in served.items() if len(times) != request.output_tokens]


def within(served: dict[str, tuple[WorkloadRequest, list[float]]], ttft_s: float) -> float:
    rt = [(r, times) for r, times in served.values() if r.request_class is RequestClass.RT]
    return sum(times[0] - request.arrival_s <= ttft_s for request, times in rt) / len(rt)


def bad_clock(scheduler: Any) -> None:
    """Measured step times that are none, and a clock that jumps ahead and back."""
    from bros_sglang.scheduler import scheduler as module

    drain, clock = scheduler.meter.drain, module.read_clock
    wrong = cycle([math.nan, 0.0, -1.0, math.inf, 1e9, None, None])
    jumps = cycle([0.0] * 40 + [30.0] * 3 + [-30.0] * 3)
    scheduler.meter.drain = lambda: tuple(
        (step, seconds if (bad := next(wrong)) is None else bad) for step, seconds in drain()
    )
    module.read_clock = lambda: clock() + next(jumps)


def test_no_measurement_and_no_clock_that_makes_sense() -> None:
    served = run(requests(RequestClass.RT, 20, every_s=0.1), requests(RequestClass.BE, 30), inject=bad_clock)
    assert not unfinished(served)


def test_targets_that_nobody_can_meet_do_not_keep_best_effort_out() -> None:
    """One row after the other asks for a token a millisecond: best-effort work gets half the time anyway."""
    impossible = requests(RequestClass.RT, 12, every_s=0.5, prompt=50, output=100, ttft_ms=1.0, tpot_ms=1.0)
    batch = requests(RequestClass.BE, 80, prompt=300, output=40)
    alone = run(batch)
    beside = run(impossible, batch)
    assert not unfinished(beside)
    ended = {
        name: max(t[-1] for r, t in s.values() if r.request_class is RequestClass.BE)
        for name, s in (("alone", alone), ("beside", beside))
    }
    assert ended["beside"] < 4 * ended["alone"]


def test_a_model_that_is_wrong_for_a_while_costs_the_targets_for_no_longer() -> None:
    """All steps take three times as long for a spell: margins widen, real-time requests stay first."""
    served = run(
        requests(RequestClass.RT, 60, every_s=0.2, ttft_ms=500.0),
        requests(RequestClass.BE, 300, prompt=300, output=40),
        step_time=Slower(60, 160, 3.0),
    )
    assert not unfinished(served)
    assert within(served, 0.5) >= 0.9


def test_best_effort_is_let_in_where_real_time_fills_the_pool() -> None:
    """Real-time requests want twice the pool for minutes; best-effort ones do not wait for their end."""
    crowd = requests(RequestClass.RT, 80, every_s=0.05, prompt=600, output=300, ttft_ms=60_000.0)
    served = run(crowd, requests(RequestClass.BE, 2, prompt=200, output=10, from_s=1.0), pool=4096)
    assert not unfinished(served)
    ends = {c: [t[-1] for r, t in served.values() if r.request_class is c] for c in RequestClass}
    assert max(ends[RequestClass.BE]) < 0.5 * max(ends[RequestClass.RT])


@pytest.mark.slow
def test_ten_thousand_at_once() -> None:
    served = run(
        replace(requests(RequestClass.RT, 10_000, prompt=60, output=4)),
        requests(RequestClass.BE, 20),
        seconds=3600.0,
    )
    assert not unfinished(served)
