"""One policy, one workload, one process: the replay itself."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.replay.arrivals import Tagging, VirtualArrivals
from bros_sglang.evals.replay.capture import Capture, capturing_streamer
from bros_sglang.evals.replay.clock import VirtualClock, VirtualTime
from bros_sglang.evals.replay.device import virtual_device_module
from bros_sglang.evals.replay.feed import Feed
from bros_sglang.evals.replay.forward import PassCounts, VirtualForward
from bros_sglang.evals.replay.stand_in import install, real_time_left
from bros_sglang.evals.step_time.frontend import Frontend
from bros_sglang.evals.step_time.step import Step
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bros_sglang.evals.replay.log import RequestLog
    from bros_sglang.evals.step_time.step import StepTimeModel
    from bros_sglang.evals.workloads.request import Workload


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """How a replay is run; seconds are virtual."""

    seconds: float  # requests arrive, and rates are measured, in [0, seconds)
    drain_s: float = 120.0  # how much longer RT requests that arrived by then may take
    cpu_s_per_pass: float = 300e-6
    frontend: Frontend = field(default_factory=Frontend)  # HTTP server and tokenizers, both ways
    frontend_seed: int = 0
    sample_s: float = 1.0  # how often queues and the KV pool are looked at


@dataclass(slots=True)
class ReplayOutcome:
    """Everything a replay yields; `wall_s` and what follows it depend on the machine, nothing else does."""

    logs: list[RequestLog]
    seconds: float
    end_s: float
    counts: PassCounts
    samples: list[dict[str, Any]] = field(default_factory=list)
    modules_with_real_time: list[str] = field(default_factory=list)
    wall_s: float = 0.0
    cpu_s: float = 0.0  # of this process: what a machine with other work to do is to be judged by
    own_wall_s: float = 0.0  # of it, spent in this package's stand-ins
    step_times_s: list[tuple[float, float]] = field(default_factory=list)  # (predicted by bros, actual)

    @property
    def passes(self) -> int:
        """Forward passes in all."""
        return sum(self.counts.passes.values())


class Sampler:
    """Looks at queues and the KV pool once per `sample_s` of virtual time."""

    def __init__(
        self, scheduler: Any, clock: VirtualClock, sample_s: float, classes: Callable[[str], RequestClass]
    ) -> None:
        self._scheduler, self._clock, self._sample_s, self._class_of = scheduler, clock, sample_s, classes
        self._next_s = 0.0
        self._judged_step = 0
        self.step_times_s: list[tuple[float, float]] = []
        self.samples: list[dict[str, Any]] = []

    def __call__(self) -> None:
        """Take a sample if one is due."""
        now_s = self._clock.now_s
        if now_s < self._next_s:
            return
        self._next_s = now_s - now_s % self._sample_s + self._sample_s
        scheduler = self._scheduler
        self._note_predictions()
        waiting = [self._class_of(req.rid) for req in scheduler.waiting_queue]
        held = {RequestClass.RT: 0, RequestClass.BE: 0}
        running = {RequestClass.RT: 0, RequestClass.BE: 0}
        for req in self._running():
            request_class = self._class_of(req.rid)
            running[request_class] += 1
            held[request_class] += len(req.origin_input_ids) + len(req.output_ids)
        self.samples.append(
            {
                "at_s": now_s,
                "rt_tokens": held[RequestClass.RT],
                "be_tokens": held[RequestClass.BE],
                "cached_tokens": int(scheduler.tree_cache.evictable_size()),
                "pool_tokens": int(scheduler.max_total_num_tokens),
                "rt_waiting": waiting.count(RequestClass.RT),
                "be_waiting": waiting.count(RequestClass.BE),
                "rt_running": running[RequestClass.RT],
                "be_running": running[RequestClass.BE],
            }
        )

    def _note_predictions(self) -> None:
        """Take over what bros predicted for its steps and what they took; stock predicts nothing."""
        newest = self._judged_step
        for decision in getattr(self._scheduler, "decisions", ()):
            if decision.step > self._judged_step and decision.actual_s is not None:
                self.step_times_s.append((decision.predicted_s, decision.actual_s))
                newest = max(newest, decision.step)
        self._judged_step = newest

    def _running(self) -> list[Any]:
        """Return the requests that hold KV: those decoding, and those of a batch under way."""
        found = {id(req): req for req in self._scheduler.running_batch.reqs}
        last = self._scheduler.last_batch
        if last is not None:
            found.update({id(req): req for req in last.reqs if req.finished_reason is None})
        return list(found.values())


def replay(
    scheduler: Any,
    workloads: Sequence[Workload],
    step_time: StepTimeModel,
    tagging: Tagging,
    options: ReplayOptions,
    *,
    compute_underneath: bool = False,
    observer: Callable[[Any, Step, float], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> ReplayOutcome:
    """Run `workloads` through `scheduler`, which must be fresh; one replay per process.

    `compute_underneath` also runs the scheduler's true model each pass (its tokens are dropped);
    `observer(batch, step, seconds)` sees each pass; `progress(now_s)` is called once per
    virtual second.
    """
    clock = VirtualClock()
    virtual_time = VirtualTime(clock)
    feed = Feed(workloads, options.seconds)
    capture = Capture(clock, feed.finished)
    last_seq_len: dict[str, int] = {}
    forward = VirtualForward(
        clock,
        step_time,
        cpu_s_per_pass=options.cpu_s_per_pass,
        # Without overlap the scheduler waits for each pass itself; a CPU device makes it wait anyhow.
        blocking=step_time.blocking or not scheduler.enable_overlap,
        last_seq_len=last_seq_len,
        vocab_size=scheduler.model_config.vocab_size,
        eos_token=min(scheduler.model_config.hf_eos_token_id),
        real=scheduler.tp_worker.forward_batch_generation if compute_underneath else None,
        observer=observer,
    )
    sampler = Sampler(scheduler, clock, options.sample_s, lambda rid: capture.logs[rid].request.request_class)

    def finished(now_s: float) -> bool:
        if now_s >= options.seconds:
            drained = capture.open_rt == 0 and feed.next_arrival_s() is None
            return drained or now_s >= options.seconds + options.drain_s
        return feed.exhausted() and capture.open == 0

    last_second = -1

    def on_poll() -> None:
        nonlocal last_second
        sampler()
        if progress is not None and int(clock.now_s) != last_second:
            last_second = int(clock.now_s)
            progress(clock.now_s)

    arrivals = VirtualArrivals(
        clock=clock,
        feed=feed,
        capture=capture,
        tagging=tagging,
        vocab_size=scheduler.model_config.vocab_size,
        last_seq_len=last_seq_len,
        finished=finished,
        on_poll=on_poll,
        frontend=options.frontend,
        frontend_seed=options.frontend_seed,
    )
    own = Stopwatch()
    _attach(scheduler, clock, capture, forward, arrivals, own, step_time)
    install(virtual_time)
    gc.collect()
    gc.freeze()
    started, cpu_started = time.perf_counter(), time.process_time()
    scheduler.run_event_loop()
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    return ReplayOutcome(
        logs=list(capture.logs.values()),
        seconds=options.seconds,
        end_s=clock.now_s,
        counts=forward.counts,
        samples=sampler.samples,
        modules_with_real_time=real_time_left(),
        wall_s=wall_s,
        cpu_s=cpu_s,
        own_wall_s=own.seconds,
        step_times_s=sampler.step_times_s,
    )


class Stopwatch:
    """Adds up the real time spent in this package's stand-ins: the rest of a run is SGLang's own."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed."""
        perf_counter = time.perf_counter

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += perf_counter() - started

        return timed


def _attach(
    scheduler: Any,
    clock: VirtualClock,
    capture: Capture,
    forward: VirtualForward,
    arrivals: VirtualArrivals,
    own: Stopwatch,
    step_time: StepTimeModel,
) -> None:
    """Put the stand-ins where the scheduler looks; see `docs/replay.md` for the list."""
    scheduler.device_module = virtual_device_module(scheduler.device_module, clock)
    scheduler.tp_worker.forward_batch_generation = own.around(forward)
    scheduler.output_streamer = capturing_streamer(scheduler.output_streamer, own.around(capture.take))
    # Frozen dataclasses: nobody but a stand-in has reason to change what they hold.
    object.__setattr__(scheduler.batch_result_processor, "output_streamer", scheduler.output_streamer)
    object.__setattr__(scheduler.ipc_channels, "send_to_tokenizer", capture)
    object.__setattr__(scheduler.ipc_channels, "send_to_detokenizer", capture)
    arrivals.attach(scheduler, own.around(arrivals.pull))
    controller = getattr(scheduler.tree_cache, "cache_controller", None)
    if controller is not None:
        _count_load_back(controller, forward)
        _wait_for_write_back(scheduler.tree_cache, clock, step_time)


def _wait_for_write_back(tree: Any, clock: VirtualClock, step_time: StepTimeModel) -> None:
    """Let the host wait where write-back makes it wait: for the running pass, then for the copy to host.

    SGLang queues such a copy behind the forward stream (`cache_controller.start_writing`) and waits for it
    (`writing_check(write_back=True)`). Copies under write-through are not waited for.
    """
    writing_check = tree.writing_check
    many = 1_000_000_000  # so many tokens that their transfer alone decides what a pass takes
    token_s = step_time.step_s(Step(load_back_tokens=many)) / many

    def waiting(write_back: bool = False, finish_count: int | None = None) -> Any:  # noqa: FBT001, FBT002
        if write_back and tree.ongoing_write_through:
            controller = tree.cache_controller
            queued = sum(len(op.device_indices) for op in controller.write_queue)
            tokens = queued + sum(ack.num_tokens for ack in controller.ack_write_queue)
            clock.advance_to(clock.free_s)
            clock.now_s += tokens * token_s
        return writing_check(write_back=write_back, finish_count=finish_count)

    tree.writing_check = waiting


def _count_load_back(controller: Any, forward: VirtualForward) -> None:
    """Charge KV that HiCache brings back from host memory to the pass that waits for it."""
    start_loading = controller.start_loading

    def counted() -> Any:
        forward.pending_load_back_tokens += sum(len(op.device_indices) for op in controller.load_queue)
        return start_loading()

    controller.start_loading = counted
