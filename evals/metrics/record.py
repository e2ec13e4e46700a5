"""What is kept of one request, whether it was replayed, sent to a live server or part of the demo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bros_sglang.request_class import RequestClass


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request as its client saw it. Times are seconds on the run's clock, whose zero is the run's start.

    A request without `finish_s` and without `error` was in flight when the run ended.
    """

    rid: str
    request_class: RequestClass
    arrival_s: float  # when it was sent; in a closed loop, when its seat became free
    prompt_tokens: int
    output_tokens: int  # how many it was to generate
    generated_tokens: int  # how many it did
    first_token_s: float | None = None
    last_token_s: float | None = None
    finish_s: float | None = None
    max_gap_s: float | None = None  # longest time between two tokens
    on_time_tokens: int | None = None  # tokens that met their own deadline; None where it has no targets
    cached_tokens: int = 0  # prompt tokens found in the prefix cache on first admission
    preemptions: int = 0  # times that it lost its slot (retractions included)
    ttft_ms: float | None = None  # targets
    tpot_ms: float | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Tell whether it ended without an error."""
        return self.finish_s is not None and self.error is None

    @property
    def in_flight(self) -> bool:
        """Tell whether the run ended before it did."""
        return self.finish_s is None and self.error is None

    @property
    def ttft_s(self) -> float | None:
        """Return the time from arrival to the first token."""
        return None if self.first_token_s is None else self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Return the mean time per token after the first; None with fewer than two tokens."""
        if self.first_token_s is None or self.last_token_s is None or self.generated_tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.generated_tokens - 1)

    @property
    def normalized_latency_s(self) -> float | None:
        """Return end-to-end latency per generated token (Orca, vLLM, BROS section 6); None before the end."""
        if not self.finished or self.finish_s is None or self.generated_tokens == 0:
            return None
        return (self.finish_s - self.arrival_s) / self.generated_tokens


class TokenTimes:
    """Follow one request's tokens as they come, in constant memory.

    The k-th token (from 0) is due at arrival + TTFT + k × TPOT: the deadlines count from when the first
    token is due, so that a request ahead of its deadlines may use the time that it gained.
    """

    __slots__ = ("arrival_s", "first_s", "generated", "last_s", "max_gap_s", "on_time", "tpot_s", "ttft_s")

    def __init__(self, arrival_s: float, ttft_ms: float | None = None, tpot_ms: float | None = None) -> None:
        self.arrival_s = arrival_s
        self.ttft_s = None if ttft_ms is None else ttft_ms / 1000.0
        self.tpot_s = None if tpot_ms is None else tpot_ms / 1000.0
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.max_gap_s: float | None = None
        self.generated = 0
        self.on_time = 0

    def add(self, now_s: float, tokens: int = 1) -> None:
        """Take note of tokens that arrived together at `now_s`."""
        if tokens <= 0:
            return
        if self.last_s is None:
            self.first_s = now_s
        else:
            self.max_gap_s = max(self.max_gap_s or 0.0, now_s - self.last_s)
        if self.max_gap_s is None and tokens > 1:
            self.max_gap_s = 0.0
        self.last_s = now_s
        for index in range(self.generated, self.generated + tokens):
            self.on_time += self._in_time(now_s, index)
        self.generated += tokens

    def _in_time(self, now_s: float, index: int) -> bool:
        # A target that is not set is met: a request with a TTFT target alone is judged by its first token.
        if self.ttft_s is None:
            if self.tpot_s is None or self.first_s is None:
                return True
            return now_s <= self.first_s + index * self.tpot_s
        if self.tpot_s is None:
            return index > 0 or now_s <= self.arrival_s + self.ttft_s
        return now_s <= self.arrival_s + self.ttft_s + index * self.tpot_s

    @property
    def on_time_tokens(self) -> int | None:
        """Return how many tokens met their deadline, or None where there are no targets."""
        return None if self.ttft_s is None and self.tpot_s is None else self.on_time
