"""Where tokens go: a stand-in for the streamer to the detokenizer, and for the aborts beside it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bros_sglang.evals.replay.clock import VirtualClock
    from bros_sglang.evals.replay.log import RequestLog


class Capture:
    """Stamps each token when the scheduler gives it out, and tells the feed what ended."""

    def __init__(self, clock: VirtualClock, finished: Callable[[str, float], None]) -> None:
        self.logs: dict[str, RequestLog] = {}
        self.open = 0  # requests sent and not ended
        self.open_rt = 0  # the RT ones among them
        self._clock, self._finished = clock, finished

    def sent(self, log: RequestLog) -> None:
        """Open the log of a request that was just handed to the scheduler."""
        self.logs[log.request.rid] = log
        self.open += 1
        self.open_rt += log.request.request_class is RequestClass.RT

    def take(self, reqs: Sequence[Any], skip_req: Any) -> None:
        """Take what `SchedulerOutputStreamer` would send to the detokenizer."""
        now_s = self._clock.now_s
        for req in reqs:
            if req is skip_req:
                continue
            ended = req.finished_reason is not None
            if ended and req.finished_output:
                continue  # under overlap a finished request comes by twice (its delayed token)
            log = self.logs[req.rid]
            token_s = log.token_s
            new = len(req.output_ids) - len(token_s)
            for _ in range(new):
                token_s.append(now_s + log.back_s)
            if ended:
                if new > 0:
                    token_s[-1] = max(now_s + log.last_back_s, token_s[-2] if len(token_s) > 1 else 0.0)
                req.finished_output = True
                if req.finished_len is None:
                    req.finished_len = len(req.output_ids)
                log.cached_tokens = req.cached_tokens
                log.preemptions = req.retraction_count
                reason = req.finished_reason.to_json()
                error = reason.get("message") if reason.get("type") == "abort" else None
                self._end(log, error)

    def send_output(self, output: Any, *_: Any, **__: Any) -> None:
        """Take what goes to the tokenizer past the streamer: aborts of queued or retracted requests."""
        log = self.logs.get(getattr(output, "rid", None) or "")
        reason = getattr(output, "finished_reason", None)
        if log is not None and log.in_flight:
            self._end(log, str((reason or {}).get("message") or "aborted"))

    def _end(self, log: RequestLog, error: str | None) -> None:
        heard_s = log.token_s[-1] if error is None and log.token_s else self._clock.now_s + log.back_s
        log.finish_s = heard_s
        log.error = error
        self.open -= 1
        self.open_rt -= log.request.request_class is RequestClass.RT
        self._finished(log.request.rid, heard_s)


def capturing_streamer(streamer: Any, take: Callable[[Sequence[Any], Any], None]) -> Any:
    """Return a copy of the scheduler's output streamer whose one outlet leads to `take`.

    Its class derives from the class that is there, so that what a plugin put around `stream_output` runs.
    """
    base = type(streamer)

    class CapturingStreamer(base):  # type: ignore[misc, valid-type]
        """The real streamer with its outlet moved."""

        __slots__ = ()

        def _stream_output_generation(
            self,
            reqs: Sequence[Any],
            return_logprob: bool,  # noqa: FBT001 (SGLang's signature)
            skip_req: Any = None,
            is_idle_batch: bool = False,  # noqa: FBT001, FBT002
        ) -> None:
            del return_logprob, is_idle_batch
            take(reqs, skip_req)

    return CapturingStreamer(
        **{f.name: getattr(streamer, f.name) for f in dataclasses.fields(streamer) if f.init}
    )
