"""Where requests come from: a request receiver that reads the feed instead of sockets."""

from __future__ import annotations

import dataclasses
import heapq
from array import array
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.replay.log import RequestLog
from bros_sglang.evals.workloads.request import WorkloadRequest, prompt_token_ids
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.evals.replay.capture import Capture
    from bros_sglang.evals.replay.clock import VirtualClock
    from bros_sglang.evals.replay.feed import Feed
    from bros_sglang.evals.step_time.frontend import Frontend

POLL_S = 200e-6  # virtual time of one turn of the scheduler's loop that finds nothing to run
STALL_S = 120.0  # a scheduler that runs nothing for so long, with requests waiting, is stuck


class ReplayStalledError(RuntimeError):
    """The scheduler holds requests and runs nothing, with nothing more to come."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tagging:
    """What clients put on their requests for the policy under test."""

    bros_tag: bool = False  # custom_params: {"bros": {"class", "ttft_ms", "tpot_ms"}}
    rt_priority: int | None = None
    be_priority: int | None = None
    # As load generators ask: admission then reserves the whole answer, and it ends at max_new_tokens.
    ignore_eos: bool = False

    def custom_params(self, request: WorkloadRequest) -> dict[str, Any] | None:
        """Return the request's `custom_params`."""
        if not self.bros_tag:
            return None
        tag: dict[str, Any] = {"class": str(request.request_class)}
        if request.ttft_ms is not None:
            tag["ttft_ms"] = request.ttft_ms
        if request.tpot_ms is not None:
            tag["tpot_ms"] = request.tpot_ms
        return {"bros": tag}

    def priority(self, request: WorkloadRequest) -> int | None:
        """Return the request's stock priority."""
        return self.rt_priority if request.request_class is RequestClass.RT else self.be_priority


def tokenized_request(request: WorkloadRequest, tagging: Tagging, vocab_size: int) -> Any:
    """Return what SGLang's tokenizer process would send for `request`."""
    from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
    from sglang.srt.sampling.sampling_params import SamplingParams

    sampling = SamplingParams(
        max_new_tokens=request.max_new_tokens,
        temperature=0.0,
        ignore_eos=tagging.ignore_eos,
        custom_params=tagging.custom_params(request),
    )
    sampling.normalize(None)
    token_ids: array[int] = array("q")
    token_ids.frombytes(prompt_token_ids(request, vocab_size).astype("<i8").tobytes())
    return TokenizedGenerateReqInput(
        rid=request.rid,
        input_text="",
        input_ids=token_ids,
        input_embeds=None,
        mm_inputs=None,
        token_type_ids=None,
        sampling_params=sampling,
        return_logprob=False,
        logprob_start_len=-1,
        top_logprobs_num=0,
        token_ids_logprob=None,
        stream=True,
        priority=tagging.priority(request),
    )


class VirtualArrivals:
    """Delivers due requests each time the scheduler polls, and moves time on when there is nothing to do."""

    def __init__(
        self,
        *,
        clock: VirtualClock,
        feed: Feed,
        capture: Capture,
        tagging: Tagging,
        vocab_size: int,
        last_seq_len: dict[str, int],
        finished: Callable[[float], bool],
        on_poll: Callable[[], None],
        frontend: Frontend,
        frontend_seed: int = 0,
    ) -> None:
        """Set up; `finished(now_s)` says when the run is over, `frontend` what lies before the scheduler."""
        self._clock, self._feed, self._capture = clock, feed, capture
        self._tagging, self._vocab_size = tagging, vocab_size
        self._last_seq_len = last_seq_len
        self._finished, self._on_poll = finished, on_poll
        self._frontend, self._frontend_seed = frontend, frontend_seed
        self._under_way: list[tuple[float, int, RequestLog]] = []  # sent, not at the scheduler yet; a heap
        self._sent = 0
        self._scheduler: Any = None
        self._passes_seen = -1
        self._stalled_since_s: float | None = None

    def attach(self, scheduler: Any, pull: Callable[[], list[Any]]) -> None:
        """Replace the scheduler's request receiver with one that calls `pull`."""
        receiver = scheduler.request_receiver

        class VirtualReceiver(type(receiver)):  # type: ignore[misc]
            """The real receiver; only where raw requests are pulled from differs."""

            def _pull_raw_reqs(self) -> list[Any]:
                return pull()

        fields = {f.name: getattr(receiver, f.name) for f in dataclasses.fields(receiver)}
        scheduler.request_receiver = VirtualReceiver(**fields)
        self._scheduler = scheduler

    def pull(self) -> list[Any]:
        """Return what has arrived since the last poll."""
        scheduler, clock = self._scheduler, self._clock
        self._on_poll()
        if scheduler.forward_ct == self._passes_seen:
            self._nothing_ran()
        else:
            self._passes_seen = scheduler.forward_ct
            self._stalled_since_s = None
        if self._finished(clock.now_s):
            scheduler.gracefully_exit = True
            return []
        for request, arrival_s in self._feed.due(clock.now_s):
            ways = self._frontend.ways(request, self._frontend_seed)
            log = RequestLog(request, arrival_s, back_s=ways.back_s, last_back_s=ways.last_s)
            self._capture.sent(log)
            self._sent += 1
            heapq.heappush(self._under_way, (arrival_s + ways.in_s, self._sent, log))
        arrived = []
        while self._under_way and self._under_way[0][0] <= clock.now_s:
            request = heapq.heappop(self._under_way)[2].request
            self._last_seq_len[request.rid] = request.prompt_tokens + request.output_tokens - 1
            arrived.append(tokenized_request(request, self._tagging, self._vocab_size))
        return arrived

    def _next_s(self) -> float | None:
        """Return when the next request reaches the scheduler or is sent; None where nothing will come."""
        sent_s = self._feed.next_send_s()
        if not self._under_way:
            return sent_s
        return min(self._under_way[0][0], sent_s) if sent_s is not None else self._under_way[0][0]

    def _nothing_ran(self) -> None:
        clock, next_s = self._clock, self._next_s()
        if self._scheduler.is_fully_idle():
            self._stalled_since_s = None
            if next_s is not None:
                clock.advance_to(next_s)
            return
        if self._scheduler.last_batch is not None:
            return  # a result is about to be taken in
        if self._stalled_since_s is None:
            self._stalled_since_s = clock.now_s
        if next_s is None and clock.now_s - self._stalled_since_s > STALL_S:
            raise ReplayStalledError(
                f"{len(self._scheduler.waiting_queue)} requests wait and nothing has run for {STALL_S:.0f} s "
                f"of virtual time (at {clock.now_s:.1f} s): the scheduler is stuck"
            )
        clock.advance_to(clock.now_s + POLL_S)
