"""Runs a replay in a process of its own (one Scheduler per process) and brings back what it did."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.replay.processes import ENVIRONMENT, PRELOAD
from bros_sglang.evals.step_time.frontend import Frontend

if TYPE_CHECKING:
    from bros_sglang.evals.workloads.request import ListedWorkload


@dataclass(frozen=True)
class Case:
    workloads: tuple[ListedWorkload, ...]
    flags: dict[str, Any]
    tagging: dict[str, Any] = field(default_factory=dict)
    seconds: float = 10.0
    pool_tokens: int = 4096
    slots: int = 32
    compute_underneath: bool = False
    frontend: Frontend = field(default_factory=Frontend)


def _run(case: Case, pipe: Any) -> None:
    from bros_sglang.evals.replay.arrivals import Tagging
    from bros_sglang.evals.replay.build import SchedulerConfig, build_scheduler
    from bros_sglang.evals.replay.run import ReplayOptions, replay
    from bros_sglang.evals.replay.stub_model import write_stub_model
    from bros_sglang.evals.step_time.presets import AFFINE

    passes: list[tuple[Any, ...]] = []

    def observe(batch: Any, step: Any, seconds: float) -> None:
        extend = batch.extend_lens if not batch.forward_mode.is_decode() else None
        passes.append(
            (
                batch.forward_mode.name,
                tuple(req.rid for req in batch.reqs),
                tuple(extend) if extend else None,
                tuple(batch.seq_lens_cpu.tolist()),
                tuple(batch.out_cache_loc.tolist()),
                round(seconds, 12),
            )
        )

    try:
        with tempfile.TemporaryDirectory() as folder:
            scheduler = build_scheduler(
                SchedulerConfig(
                    model_path=write_stub_model(Path(folder), 2048),
                    pool_tokens=case.pool_tokens,
                    max_running_requests=case.slots,
                    context_length=2048,
                    flags=case.flags,
                )
            )
            outcome = replay(
                scheduler,
                case.workloads,
                AFFINE,
                Tagging(**case.tagging),
                ReplayOptions(seconds=case.seconds, frontend=case.frontend),
                compute_underneath=case.compute_underneath,
                observer=observe,
            )
        pipe.send((outcome, passes))
    except BaseException as error:  # noqa: BLE001
        pipe.send(f"{type(error).__name__}: {error}")
    import os

    os._exit(0)


def run_case(case: Case) -> tuple[Any, list[tuple[Any, ...]]]:
    import os

    os.environ.update(ENVIRONMENT)
    context = get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(case, sender))
    process.start()
    sender.close()
    answer = receiver.recv()
    process.join()
    assert not isinstance(answer, str), answer
    return answer
