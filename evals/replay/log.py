"""What happened to one request, as the client would have seen it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bros_sglang.evals.workloads.request import WorkloadRequest


@dataclass(slots=True)
class RequestLog:
    """Times are seconds since the start of the replay."""

    request: WorkloadRequest
    arrival_s: float
    token_s: array[float] = field(default_factory=lambda: array("d"))  # when each output token came
    finish_s: float | None = None
    cached_tokens: int = 0  # prompt tokens that the prefix cache had
    preemptions: int = 0
    error: str | None = None
    back_s: float = 0.0  # from the scheduler to the client
    last_back_s: float = 0.0  # the same for the last token

    @property
    def in_flight(self) -> bool:
        """Whether the run ended before the request did."""
        return self.finish_s is None and self.error is None
