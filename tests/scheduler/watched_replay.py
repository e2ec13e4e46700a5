"""Replays in which every pass begins with a look at the books, and requests are aborted at any moment.

One Scheduler per process: `watch` runs a replay in a process of its own and brings back what it saw.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from bros_sglang.evals.replay.processes import ENVIRONMENT, PRELOAD
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bros_sglang.evals.workloads.request import ListedWorkload

CONTEXT_TOKENS = 2048
STATES = ("waiting", "preempted", "mid-chunk", "running", "parked")
# Best-effort requests fill the pool, so that real-time ones have to take room from them.
NO_HEADROOM = {"bros-headroom-min-share": 0, "bros-headroom-max-share": 0}


@dataclass(frozen=True)
class Draw:
    """Requests drawn at random: Poisson arrivals, uniform lengths."""

    request_class: RequestClass
    count: int
    rate: float
    prompt: tuple[int, int]
    output: tuple[int, int]
    tpot_ms: float = 20.0
    limit: int = 200  # of the output, as the client states it
    prefixes: int = 0  # a third of the prompt is one of so many shared prefixes

    def workload(self, seed: int) -> ListedWorkload:
        from bros_sglang.evals.workloads.request import ListedWorkload, WorkloadRequest

        rng = np.random.default_rng(seed)
        at_s, requests = 0.0, []
        for index in range(self.count):
            at_s += float(rng.exponential(1 / self.rate))
            prompt = int(rng.integers(*self.prompt, endpoint=True))
            output = int(rng.integers(*self.output, endpoint=True))
            prefix = ()
            if self.prefixes and prompt > 30:
                prefix = ((int(rng.integers(self.prefixes)), prompt // 3),)
            requests.append(
                WorkloadRequest(
                    f"{self.request_class}-{seed}-{index}-",  # an abort takes all ids that begin with its own
                    self.request_class,
                    at_s,
                    prompt,
                    output,
                    max(self.limit, output),
                    prefix=prefix,
                    ttft_ms=100.0,
                    tpot_ms=self.tpot_ms,
                )
            )
        return ListedWorkload(f"{self.request_class}", tuple(requests))


@dataclass(frozen=True)
class Watch:
    """A replay to watch."""

    draws: tuple[Draw, ...]
    seed: int = 1
    flags: dict[str, Any] = field(default_factory=dict)
    page_size: int = 1
    pool_tokens: int = 2048
    slots: int = 16
    aborts: tuple[str, ...] = ()  # states in which requests are aborted
    abort_share: float = 0.05  # chance per pass and state
    environment: dict[str, str] = field(default_factory=dict)
    check_each_pass: bool = True
    trials: tuple[str, ...] = ()  # methods of the scheduler that are called now and then: "flush_cache"


@dataclass
class Seen:
    """What a watched replay brings back."""

    passes: int = 0
    ended: dict[str, tuple[int, str | None]] = field(default_factory=dict)  # rid -> tokens, error
    finished_s: dict[str, float] = field(default_factory=dict)
    in_flight: list[str] = field(default_factory=list)
    aborted: Counter[str] = field(default_factory=Counter)  # by state
    states: Counter[str] = field(default_factory=Counter)  # requests seen in each, over all passes
    preempted: Counter[str] = field(default_factory=Counter)  # by class
    recomputed_tokens: int = 0
    loaded_back_tokens: int = 0
    late_launches: int = 0
    late_launches_missed: int = 0  # of these
    host_writes_seen: int = 0  # passes that began while copies to host were under way
    trials: Counter[str] = field(default_factory=Counter)  # answers of the trials
    left_over: dict[str, int] = field(default_factory=dict)  # what is not zero at the end and should be


class _Watcher:
    def __init__(self, scheduler: Any, case: Watch) -> None:
        self.scheduler, self.case, self.seen = scheduler, case, Seen()
        self.random = Random(case.seed)
        self._take_input = scheduler.process_input_requests
        self._next_batch = scheduler.get_next_batch_to_run
        scheduler.process_input_requests = self.take_input
        scheduler.get_next_batch_to_run = self.next_batch

    def in_state(self, state: str) -> list[Any]:
        scheduler = self.scheduler
        parked = getattr(scheduler, "parked", None)
        chunked = scheduler.chunked_req
        if state == "mid-chunk":
            return [chunked] if chunked is not None else []
        if state == "parked":
            return list(parked.reqs) if parked is not None else []
        if state == "running":
            return [req for req in scheduler.running_batch.reqs if not req.finished()]
        again = state == "preempted"
        return [req for req in scheduler.waiting_queue if (req.retraction_count > 0) is again]

    def take_input(self, received: list[Any]) -> None:
        """Abort somebody in each state, now and then, along with what arrived."""
        from sglang.srt.managers.io_struct import AbortReq

        self._take_input(received)
        for state in STATES:
            reqs = self.in_state(state)
            self.seen.states[state] += len(reqs)
            if state in self.case.aborts and reqs and self.random.random() < self.case.abort_share:
                req = self.random.choice(reqs)
                if req.to_finish is None:
                    self.seen.aborted[state] += 1
                    self._take_input([AbortReq(rid=req.rid)])
        for trial in self.case.trials:
            if self.random.random() < 0.05:
                self.seen.trials[f"{trial}: {getattr(self.scheduler, trial)()}"] += 1

    def next_batch(self, running_batch: Any, last_batch: Any) -> Any:
        self.check(running_batch, last_batch)
        controller = getattr(self.scheduler.tree_cache, "cache_controller", None)
        if controller is not None and self.scheduler.tree_cache.ongoing_write_through:
            self.seen.host_writes_seen += 1
        return self._next_batch(running_batch, last_batch)

    def holders(self, running_batch: Any, last_batch: Any) -> Iterator[Any]:
        for batch in (running_batch, last_batch, getattr(self.scheduler, "parked", None)):
            if batch is not None:
                yield from batch.reqs
        if self.scheduler.chunked_req is not None:
            yield self.scheduler.chunked_req
        for batch, _ in getattr(self.scheduler, "result_queue", ()):
            yield from batch.reqs

    def check(self, running_batch: Any, last_batch: Any) -> None:
        from bros_sglang.memory.integrity import check_integrity

        scheduler = self.scheduler
        self.seen.passes += 1
        if self.case.check_each_pass:
            check_integrity(
                scheduler.token_to_kv_pool_allocator,
                scheduler.tree_cache,
                self.holders(running_batch, last_batch),
                scheduler.waiting_queue,
            )

    def note_end(self, outcome: Any) -> None:
        """Let what is in flight end, and look for what was not given back."""
        scheduler, seen = self.scheduler, self.seen
        for _ in range(4):
            while getattr(scheduler, "result_queue", None):
                scheduler.process_batch_result(*scheduler.result_queue.popleft())
            scheduler.last_batch = None
            plan = self._next_batch(scheduler.running_batch, None)
            scheduler.running_batch = plan.running_batch
            if plan.batch_to_run is not None:
                seen.left_over["a batch to run"] = len(plan.batch_to_run.reqs)
                break
        allocator, tree = scheduler.token_to_kv_pool_allocator, scheduler.tree_cache
        pool = scheduler.max_total_num_tokens
        left = {
            "tokens neither free nor evictable": pool - allocator.available_size() - tree.evictable_size(),
            "tokens locked": tree.protected_size(),
            "rows": tree.req_to_token_pool.size - len(tree.req_to_token_pool.free_slots),
            "waiting": len(scheduler.waiting_queue),
            "running": len(scheduler.running_batch.reqs),
        }
        if hasattr(tree, "held"):
            left |= {"held tokens": tree.held.tokens, "held entries": len(tree.held.ledger)}
            left["tokens pinned on the host"] = tree.held.pins.tokens
            left["parked"] = 0 if scheduler.parked is None else len(scheduler.parked.reqs)
            self.check(scheduler.running_batch, None)
        seen.left_over |= {name: int(value) for name, value in left.items() if value}
        if not scheduler.flush_cache():
            seen.left_over["flush refused"] = 1
        elif allocator.available_size() != pool:
            seen.left_over["tokens after a flush"] = pool - int(allocator.available_size())
        for log in outcome.logs:
            seen.ended[log.request.rid] = (len(log.token_s), log.error)
            seen.finished_s[log.request.rid] = log.finish_s
            seen.preempted[str(log.request.request_class)] += log.preemptions
            if log.in_flight:
                seen.in_flight.append(log.request.rid)
        if hasattr(scheduler, "books"):
            seen.late_launches = scheduler.books.passes.late_launches
            seen.late_launches_missed = scheduler.books.passes.late_launches_missed
        seen.recomputed_tokens = outcome.counts.recomputed_tokens
        seen.loaded_back_tokens = outcome.counts.loaded_back_tokens


def _run(case: Watch, pipe: Any) -> None:
    os.environ.update(case.environment)
    from bros_sglang.evals.replay.arrivals import Tagging
    from bros_sglang.evals.replay.build import SchedulerConfig, build_scheduler
    from bros_sglang.evals.replay.run import ReplayOptions, replay
    from bros_sglang.evals.replay.stub_model import write_stub_model
    from bros_sglang.evals.step_time.presets import AFFINE

    try:
        with tempfile.TemporaryDirectory() as folder:
            scheduler = build_scheduler(
                SchedulerConfig(
                    model_path=write_stub_model(Path(folder), CONTEXT_TOKENS),
                    pool_tokens=case.pool_tokens,
                    max_running_requests=case.slots,
                    context_length=CONTEXT_TOKENS,
                    page_size=case.page_size,
                    flags={"schedule-policy": "bros", "chunked-prefill-size": 128} | case.flags,
                )
            )
            watcher = _Watcher(scheduler, case)
            outcome = replay(
                scheduler,
                [draw.workload(case.seed + 100 * index) for index, draw in enumerate(case.draws)],
                AFFINE,
                Tagging(bros_tag=True),
                ReplayOptions(seconds=1000.0),
            )
            watcher.note_end(outcome)
        pipe.send(watcher.seen)
    except BaseException as error:  # noqa: BLE001 (it has to reach the test)
        import traceback

        pipe.send(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    os._exit(0)


def watch(case: Watch) -> Seen:
    """Run a watched replay to its end; fails with the child's error."""
    os.environ.update(ENVIRONMENT)
    context = get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(case, sender))
    process.start()
    sender.close()
    answer = receiver.recv()
    process.join()
    assert isinstance(answer, Seen), answer
    return answer
