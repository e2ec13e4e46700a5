"""Put lengths, arrivals and the client's habits together into a workload."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, islice, takewhile
from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.workloads.errors import WorkloadError
from bros_sglang.evals.workloads.request import ListedWorkload, Workload, WorkloadRequest
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bros_sglang.evals.workloads.trace import TracedRequest

MAX_REFUSED = 10_000  # draws in a row over max_context: then there is no use in drawing on
# Shared-prefix blocks that a workload makes up take negative ids, apart by class: traces use ids from 0 up.
_PREFIX_ID_BASE = {RequestClass.RT: -1, RequestClass.BE: -1_000_001}


@dataclass(frozen=True, slots=True)
class Shape:
    """How a client turns lengths into requests."""

    request_class: RequestClass
    seed: int = 0
    scale: float = 1.0  # lengths are divided by this
    limit: int | None = None  # max_new_tokens; None sends the true length
    prefix_tokens: int = 0  # shared prefix put before each prompt
    prefixes: int = 1  # how many different shared prefixes there are
    max_context: int | None = None  # longer requests are left out
    ttft_ms: float | None = None
    tpot_ms: float | None = None

    def rng(self, purpose: str) -> np.random.Generator:
        """Return the generator for one purpose: lengths and arrivals never share a stream."""
        words = [self.seed, list(RequestClass).index(self.request_class), *purpose.encode()]
        return np.random.default_rng(words)

    def request(self, index: int, traced: TracedRequest) -> WorkloadRequest:
        """Make the index-th request out of a line of a trace or a draw of lengths."""
        prompt, prefix = traced.prompt_tokens, traced.prefix
        if self.scale != 1.0:
            prompt = max(1, round(prompt / self.scale))
            prefix = _scaled_blocks(prefix, self.scale, prompt)
        output = max(1, round(traced.output_tokens / self.scale))
        if self.prefix_tokens:
            block = _PREFIX_ID_BASE[self.request_class] - index % self.prefixes
            prefix = ((block, self.prefix_tokens), *prefix)
            prompt += self.prefix_tokens
        return WorkloadRequest(
            rid=f"{self.request_class}-{index:06d}",
            request_class=self.request_class,
            arrival_s=traced.arrival_s or 0.0,
            prompt_tokens=prompt,
            output_tokens=output,
            max_new_tokens=max(output, self.limit or 0),
            prefix=prefix,
            ttft_ms=self.ttft_ms,
            tpot_ms=self.tpot_ms,
        )

    def requests(self, name: str, lengths: Iterator[TracedRequest]) -> Iterator[WorkloadRequest]:
        """Make requests of all lengths that are short enough. Raises WorkloadError where hardly any is."""
        refused = 0
        for index, traced in enumerate(lengths):
            request = self.request(index, traced)
            if self.admits(request):
                refused = 0
                yield request
            elif (refused := refused + 1) > MAX_REFUSED:
                raise WorkloadError(f"workload {name!r}: max_context={self.max_context} leaves nothing")

    def admits(self, request: WorkloadRequest) -> bool:
        """Tell whether a request is short enough to be part of the workload."""
        return self.max_context is None or request.total_tokens <= self.max_context


def _scaled_blocks(
    prefix: tuple[tuple[int, int], ...], scale: float, prompt: int
) -> tuple[tuple[int, int], ...]:
    blocks, end, traced_end = [], 0, 0
    for block, tokens in prefix:
        traced_end += tokens
        now = min(prompt, int(traced_end / scale))
        if now > end:
            blocks.append((block, now - end))
        end = max(end, now)
    return tuple(blocks)


@dataclass(frozen=True)
class ClosedLoopWorkload(Workload):
    """`closed_loop` requests outstanding, the next one sent when one ends, without end or up to `count`."""

    name: str
    shape: Shape
    closed_loop: int | None
    lengths: Callable[[np.random.Generator], Iterator[TracedRequest]]
    count: int | None = None

    @property
    def seed(self) -> int:  # type: ignore[override]
        """The seed that every draw follows."""
        return self.shape.seed

    def __iter__(self) -> Iterator[WorkloadRequest]:
        """Yield the requests; each iteration starts over with the same ones."""
        lengths = (drawn._replace(arrival_s=None) for drawn in self.lengths(self.shape.rng("lengths")))
        return islice(self.shape.requests(self.name, lengths), self.count)


def open_loop(
    name: str,
    shape: Shape,
    arrivals_s: Iterator[float],
    lengths: Iterator[TracedRequest],
    *,
    seconds: float | None,
    count: int | None,
) -> ListedWorkload:
    """Draw a workload of known size: up to `seconds`, up to `count` requests, or what the lengths hold."""
    times = arrivals_s if seconds is None else takewhile(lambda at_s: at_s < seconds, arrivals_s)
    paired = zip(islice(times, count), shape.requests(name, lengths), strict=False)
    listed = tuple(replace(request, arrival_s=at_s) for at_s, request in paired)
    return _nonempty(name, shape, listed)


def traced(
    name: str,
    shape: Shape,
    trace: Sequence[TracedRequest],
    *,
    speed: float,
    start_s: float,
    seconds: float | None,
    count: int | None,
) -> ListedWorkload:
    """Play a trace at its own times from its `start_s` on.

    It goes `speed` times as fast as it was recorded, for `seconds` of the run.
    """
    requests = []
    for index, line in enumerate(trace):
        at_s = ((line.arrival_s or 0.0) - start_s) / speed
        if at_s < 0 or (seconds is not None and at_s >= seconds):
            continue
        request = shape.request(index, line._replace(arrival_s=at_s))
        if shape.admits(request):
            requests.append(request)
    return _nonempty(name, shape, tuple(requests[:count]))


def _nonempty(name: str, shape: Shape, requests: tuple[WorkloadRequest, ...]) -> ListedWorkload:
    if not requests:
        raise WorkloadError(
            f"workload {name!r} holds no requests: its slice, length limit or duration leaves none"
        )
    return ListedWorkload(name=name, requests=requests, seed=shape.seed)


def draw_from(table: Sequence[TracedRequest], rng: np.random.Generator) -> Iterator[TracedRequest]:
    """Draw lines of a length table, with replacement, without end."""
    while True:
        for index in rng.integers(0, len(table), size=1024):
            yield table[int(index)]


def check_lengths(workload: Iterable[WorkloadRequest], *, pool_tokens: int, first: int = 100_000) -> None:
    """Raise WorkloadError where a request cannot fit the KV pool even alone.

    An endless workload is checked by its first `first` requests.
    """
    too_long, longest, seen = 0, None, 0
    for request in islice(chain(workload), first):
        seen += 1
        if request.total_tokens > pool_tokens:
            too_long += 1
            if longest is None or request.total_tokens > longest.total_tokens:
                longest = request
    if longest is not None:
        raise WorkloadError(
            f"{too_long} of {seen} requests do not fit the pool of {pool_tokens} tokens; the longest is "
            f"{longest.rid} with {longest.prompt_tokens} prompt and {longest.output_tokens} output tokens. "
            f"Make the pool larger, divide the lengths (scale=…) or leave long requests out "
            f"(max_context={pool_tokens})"
        )
