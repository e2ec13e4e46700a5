"""One policy's run: its requests' records, and the facts that no single request knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.metrics.record import RequestRecord


@dataclass(frozen=True, slots=True)
class StateSample:
    """The scheduler's state at one moment; tokens are KV slots. None where a server does not tell.

    A server that does not tell classes apart has None for both and the sums in `held_tokens`, `waiting` and
    `running`; otherwise those are the sums of both classes.
    """

    at_s: float
    rt_tokens: int | None = 0  # held by running RT requests
    be_tokens: int | None = 0  # held by running BE requests
    cached_tokens: int | None = 0  # evictable prefix cache
    pool_tokens: int = 0
    rt_waiting: int | None = 0
    be_waiting: int | None = 0
    rt_running: int | None = 0
    be_running: int | None = 0
    all_tokens: int | None = None
    all_waiting: int | None = None
    all_running: int | None = None

    @classmethod
    def undivided(cls, *, held_tokens: int, pool_tokens: int, waiting: int, running: int) -> StateSample:
        """Return the sample (at 0.0) of a server that does not tell classes apart, nor its cache."""
        return cls(
            at_s=0.0,
            rt_tokens=None,
            be_tokens=None,
            cached_tokens=None,
            pool_tokens=pool_tokens,
            rt_waiting=None,
            be_waiting=None,
            rt_running=None,
            be_running=None,
            all_tokens=held_tokens,
            all_waiting=waiting,
            all_running=running,
        )

    @property
    def held_tokens(self) -> int | None:
        """KV held by running requests of both classes."""
        return _sum(self.all_tokens, self.rt_tokens, self.be_tokens)

    @property
    def waiting(self) -> int | None:
        """Requests of both classes that wait for admission."""
        return _sum(self.all_waiting, self.rt_waiting, self.be_waiting)

    @property
    def running(self) -> int | None:
        """Requests of both classes that run."""
        return _sum(self.all_running, self.rt_running, self.be_running)


def _sum(told: int | None, rt: int | None, be: int | None) -> int | None:
    if told is not None:
        return told
    return None if rt is None or be is None else rt + be


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the run as a whole knows. None means that it was not measured: its metrics are null, never 0.

    Only RT requests that arrived and only BE tokens that were made from `start_s` to `end_s` count, so that a
    warm-up can be left out.
    """

    policy: str
    end_s: float
    start_s: float = 0.0
    wall_s: float | None = None  # real time that the run took
    clock_zero_s: float | None = None  # live: `time.perf_counter` at the run's 0
    passes: int | None = None  # scheduler passes that ran a batch
    recomputed_tokens: int | None = None  # prefilled again after a preemption
    loaded_back_tokens: int | None = None  # brought back from host memory
    preemptions: int | None = None  # as the server counts them; None: the records' own are added up
    knows_preemptions: bool = True  # whether the records tell preemptions at all
    samples: Sequence[StateSample] = ()
    step_times_s: Sequence[tuple[float, float]] = ()  # (predicted, actual)
    extra: dict[str, Any] = field(default_factory=dict)  # copied into the policy's result as it is


@dataclass(frozen=True)
class Run:
    """Records and facts together; what every metric takes."""

    records: Sequence[RequestRecord]
    facts: RunFacts

    @cached_property
    def rt(self) -> list[RequestRecord]:
        """RT requests that arrived in the measured part."""
        return self._arrived(RequestClass.RT)

    @cached_property
    def be(self) -> list[RequestRecord]:
        """BE requests that were in the system in the measured part, whenever they arrived."""
        return [
            record
            for record in self.records
            if record.request_class is RequestClass.BE
            and record.arrival_s < self.facts.end_s
            and (record.finish_s is None or record.finish_s >= self.facts.start_s)
        ]

    @cached_property
    def samples(self) -> list[StateSample]:
        """The samples of the measured part."""
        return [s for s in self.facts.samples if self.facts.start_s <= s.at_s <= self.facts.end_s]

    def _arrived(self, request_class: RequestClass) -> list[RequestRecord]:
        start_s, end_s = self.facts.start_s, self.facts.end_s
        return [
            record
            for record in self.records
            if record.request_class is request_class and start_s <= record.arrival_s < end_s
        ]

    @property
    def seconds(self) -> float:
        """Length of the measured part."""
        return self.facts.end_s - self.facts.start_s
