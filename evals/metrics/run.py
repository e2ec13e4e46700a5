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
    """The scheduler's state at one moment; tokens are KV slots."""

    at_s: float
    rt_tokens: int = 0  # held by running RT requests
    be_tokens: int = 0  # held by running BE requests
    cached_tokens: int = 0  # evictable prefix cache
    pool_tokens: int = 0
    rt_waiting: int = 0
    be_waiting: int = 0
    rt_running: int = 0
    be_running: int = 0


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
    passes: int | None = None  # scheduler passes that ran a batch
    recomputed_tokens: int | None = None  # prefilled again after a preemption
    loaded_back_tokens: int | None = None  # brought back from host memory
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
