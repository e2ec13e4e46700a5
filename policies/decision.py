"""A record of every step that was planned: what was seen, what was lent, and why no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Decision:
    """One pass of the scheduler. Times in seconds on the agreed clock; durations in seconds."""

    step: int  # number of the step that follows (SGLang's forward_ct + 1)
    now_s: float
    start_s: float  # when the step could begin
    rt_waiting: int
    be_waiting: int
    rt_rows: int  # running decode rows
    be_rows: int
    lendable_s: float | None  # time to spare before the tightest deadline; None where none binds
    limit_s: float  # what the step was allowed to take
    bound: str  # what limited the best-effort share
    lost: int  # waiting real-time requests that cannot be on time any more
    rt_tokens: int = 0  # planned prefill
    be_tokens: int = 0
    mode: str = "idle"  # what ran: prefill, mixed, decode or idle
    rt_admitted: list[str] = field(default_factory=list)  # request ids
    be_admitted: int = 0
    rt_prefilled: int = 0  # tokens
    be_prefilled: int = 0
    parked: int = 0
    preempted: list[str] = field(default_factory=list)
    refused: str = ""  # why the next real-time candidate did not get in
    predicted_s: float = 0.0
    lent_s: float = 0.0  # of it, what best-effort work adds beside real-time requests
    actual_s: float | None = None  # filled in when the step's result is there

    @property
    def best_effort_share(self) -> float:
        """The part of the step's tokens and rows that was best-effort work, 0 to 1."""
        be = self.be_prefilled + self.be_rows - min(self.parked, self.be_rows)
        total = be + self.rt_prefilled + self.rt_rows
        return be / total if total else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return asdict(self)


class DecisionRing:
    """The last decisions, by step number; old ones fall out."""

    def __init__(self, size: int) -> None:
        self._records: deque[Decision] = deque(maxlen=size)
        self._by_step: dict[int, Decision] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self._records)

    def add(self, decision: Decision) -> None:
        """Keep a decision; a later one for the same step (a pass that ran nothing) does not replace it."""
        if len(self._records) == self._records.maxlen:
            oldest = self._records[0]
            if self._by_step.get(oldest.step) is oldest:
                del self._by_step[oldest.step]
        self._records.append(decision)
        self._by_step[decision.step] = decision

    def ended(self, step: int, actual_s: float) -> Decision | None:
        """Note how long a step took; return its record, if it is still kept."""
        decision = self._by_step.get(step)
        if decision is not None:
            decision.actual_s = actual_s
        return decision
