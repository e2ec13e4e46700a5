"""A synthetic hour in the life of the KV pool: arrivals, decode steps, ends, preemptions; no model."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch

from bros_sglang.evals.memory.locality import Locality, locality_of
from bros_sglang.evals.memory.pool_driver import OutOfKVError, PoolDriver, Variant
from bros_sglang.request_class import RequestClass, class_of


@dataclass(frozen=True, slots=True)
class ChurnLoad:
    """What arrives. Lengths in tokens; BE lengths are the paper's."""

    rt_arrivals_per_step: float = 0.25
    rt_prompt_median: int = 256
    rt_output_mean: int = 200
    rt_shared_prefix: int = 64
    rt_prefixes: int = 20
    be_outstanding: int = 128
    be_prompt: tuple[int, int] = (512, 1024)
    be_output: tuple[int, int] = (32, 128)
    decode_rows: int = 128
    promised_share: float = 0.1  # of the running requests' further output that admission keeps room for


@dataclass(slots=True)
class ChurnResult:
    """What came of it."""

    rt: Locality
    be: Locality
    victims: list[torch.Tensor]  # slots of some best-effort requests as they were preempted or last seen
    occupancy: torch.Tensor  # per slot: 0 free, 1 best-effort, 2 real-time, 3 cache
    finished: int = 0
    preemptions: int = 0
    computed_tokens: int = 0
    redone_tokens: int = 0
    samples: dict[RequestClass, list[torch.Tensor]] = field(default_factory=dict)


class Churn:
    """Runs a load on one driver; the same seed gives every variant the same requests."""

    def __init__(self, driver: PoolDriver, load: ChurnLoad, seed: int = 0, *, keep_on_preempt: bool) -> None:
        self.driver = driver
        self.load = load
        self.keep_on_preempt = keep_on_preempt
        self._rng = random.Random(seed)
        self._names = count()
        self._waiting: dict[RequestClass, deque[Any]] = {RequestClass.RT: deque(), RequestClass.BE: deque()}
        self._resumed: deque[Any] = deque()
        self._running: list[Any] = []
        self._output: dict[str, int] = {}
        self.result = ChurnResult(locality_of([]), locality_of([]), [], torch.empty(0))

    def run(
        self, steps: int, *, sample_every: int = 200, on_step: Callable[[int], None] | None = None
    ) -> ChurnResult:
        """Run the steps, sampling contiguity in the second half."""
        samples: dict[RequestClass, list[torch.Tensor]] = {RequestClass.RT: [], RequestClass.BE: []}
        for step in range(steps):
            self._arrive()
            self._admit()
            self._decode()
            if step >= steps // 2 and step % sample_every == 0:
                for req in self._running:
                    samples[class_of(req)].append(self.driver.slots_of(req).clone())
            if on_step is not None:
                on_step(step)
        result = self.result
        result.samples = samples
        result.rt, result.be = (locality_of(samples[c]) for c in (RequestClass.RT, RequestClass.BE))
        if not result.victims:
            result.victims = samples[RequestClass.BE][-64:]
        result.occupancy = self._occupancy()
        return result

    def _arrive(self) -> None:
        load, rng = self.load, self._rng
        if rng.random() < load.rt_arrivals_per_step:
            which = rng.randrange(load.rt_prefixes)
            prompt = [1_000_000 + which] * load.rt_shared_prefix
            tail = int(rng.lognormvariate(0.0, 0.8) * load.rt_prompt_median)
            self._queue(RequestClass.RT, prompt, tail, int(rng.expovariate(1 / load.rt_output_mean)) + 1)
        outstanding = (
            len(self._waiting[RequestClass.BE])
            + len(self._resumed)
            + sum(class_of(req) is RequestClass.BE for req in self._running)
        )
        for _ in range(load.be_outstanding - outstanding):
            self._queue(RequestClass.BE, [], rng.randint(*load.be_prompt), rng.randint(*load.be_output))

    def _queue(self, request_class: RequestClass, start: list[int], tail: int, output: int) -> None:
        name = f"r{next(self._names)}"
        tokens = start + [self._rng.randrange(1 << 20) for _ in range(min(max(tail, 8), 4000))]
        self._waiting[request_class].append(self.driver.request(name, request_class, tokens))
        self._output[name] = min(output, 2000)

    def _admit(self) -> None:
        for request_class in (RequestClass.RT, RequestClass.BE):
            for queue in (self._resumed, self._waiting[request_class]):
                while (
                    queue
                    and class_of(queue[0]) is request_class
                    and len(self._running) < self.load.decode_rows
                ):
                    if not self._start(queue[0]):
                        return
                    queue.popleft()

    def _start(self, req: Any) -> bool:
        # As SGLang's admission does: room for a share of what the running ones have yet to generate is kept.
        yet_to_come = sum(self._output[r.rid] - len(r.output_ids) for r in self._running)
        promised = int(self.load.promised_share * yet_to_come)
        promised += len(self._running) * self.driver.page_size
        kept = self.driver.kept_tokens(req)
        if class_of(req) is RequestClass.BE and self.driver.room() < promised + req.seqlen - kept:
            return False
        while True:
            try:
                computed = self.driver.prefill([req])[0]
            except OutOfKVError:
                if class_of(req) is RequestClass.RT and self._preempt_one():
                    continue
                return False
            self.result.computed_tokens += computed
            if req.retraction_count:
                # Computing the last token again is no loss: it had not been in KV.
                self.result.redone_tokens += computed - 1
            self._running.append(req)
            return True

    def _preempt_one(self, *, rt_too: bool = False) -> bool:
        """Preempt the youngest best-effort request; with `rt_too` a real-time one if there is none."""
        victims = [req for req in self._running if class_of(req) is RequestClass.BE]
        if not victims and rt_too and len(self._running) > 1:
            victims = self._running
        if not victims:
            return False
        victim = victims[-1]
        self._running.remove(victim)
        if len(self.result.victims) < 256:
            self.result.victims.append(self.driver.slots_of(victim).clone())
        self.driver.preempt(victim, keep=self.keep_on_preempt)
        self._resumed.append(victim)
        self.result.preemptions += 1
        return True

    def _decode(self) -> None:
        while self._running:
            try:
                self.driver.decode(self._running, [self._rng.randrange(1 << 20) for _ in self._running])
                break
            except OutOfKVError:
                if not self._preempt_one(rt_too=True):
                    raise
        self.result.computed_tokens += len(self._running)
        ended = [req for req in self._running if len(req.output_ids) > self._output[req.rid]]
        for req in ended:
            self._running.remove(req)
            self.driver.finish(req)
            self.result.finished += 1

    def _occupancy(self) -> torch.Tensor:
        marks = torch.zeros(self.driver.allocator.size + self.driver.page_size, dtype=torch.int8)
        marks[self.driver.tree.all_values_flatten()] = 3
        for req in self._running:
            marks[self.driver.slots_of(req)] = 2 if class_of(req) is RequestClass.RT else 1
        return marks[self.driver.page_size :]


def run_churn(
    variant: Variant,
    *,
    pool: int,
    page_size: int,
    steps: int,
    load: ChurnLoad | None = None,
    seed: int = 0,
    on_step: Callable[[int], None] | None = None,
) -> ChurnResult:
    """Run one variant: stock's allocator and tree, or this project's, under the same requests."""
    driver = PoolDriver(pool, page_size=page_size, allocator=variant, tree=variant, max_context=8192)
    churn = Churn(driver, load or ChurnLoad(), seed, keep_on_preempt=variant == "bros")
    return churn.run(steps, on_step=on_step)
