"""The scheduling rule of Text Generation Inference.

As `router/src/infer/v2/scheduler.rs:batching_task` and `queue.rs:State::next_batch` have it: first come first
served; a request is admitted when its whole prompt fits the prefill budget and its prompt and its
`max_new_tokens` fit the pool, both reserved to its end; waiting requests join a running batch when they are
at least `waiting_served_ratio` times as many, or after `max_waiting_tokens` decode steps without a join.
Nothing is preempted and nothing chunked; decoding stands still during a prefill.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from bros_sglang.evals.replay.rule_loop import Plan

if TYPE_CHECKING:
    from bros_sglang.evals.replay.rule_loop import RuleRequest

# The launcher's defaults (launcher/src/main.rs).
WAITING_SERVED_RATIO = 0.3
MAX_WAITING_TOKENS = 20
MAX_BATCH_PREFILL_TOKENS = 4096


class TgiRule:
    """One engine."""

    def __init__(
        self, pool_tokens: int, slots: int, *, prefill_tokens: int = MAX_BATCH_PREFILL_TOKENS
    ) -> None:
        self._free_tokens, self._slots, self._prefill_tokens = pool_tokens, slots, prefill_tokens
        self._waiting: deque[RuleRequest] = deque()
        self._running: list[RuleRequest] = []
        self._decode_steps = 0
        self.recomputed_tokens = 0  # it never preempts

    @staticmethod
    def _reserved(request: RuleRequest) -> int:
        return request.log.request.prompt_tokens + request.log.request.max_new_tokens

    def add(self, request: RuleRequest) -> None:
        """Queue a request."""
        self._waiting.append(request)

    def finish(self, request: RuleRequest) -> None:
        """Free what a finished request reserved."""
        self._running.remove(request)
        self._free_tokens += self._reserved(request)

    def waiting(self) -> list[RuleRequest]:
        """Return the queue."""
        return list(self._waiting)

    def running(self) -> list[RuleRequest]:
        """Return the running requests."""
        return self._running

    def plan(self) -> Plan | None:
        """Choose the next pass: a prefill of requests that join, else a decode of those that run."""
        joining = self._joining()
        if joining:
            self._decode_steps = 0
            plan = Plan()
            for request in joining:
                plan.step.add_prefill(request.known_tokens, 0)
                request.computed_tokens = request.known_tokens
            self._running.extend(joining)
            plan.producing = joining
            return plan
        if not self._running:
            return None
        self._decode_steps += 1
        plan = Plan(producing=list(self._running))
        plan.step.decode_rows = len(self._running)
        plan.step.decode_context_tokens = sum(request.known_tokens for request in self._running)
        for request in self._running:
            request.computed_tokens = request.known_tokens
        return plan

    def _joining(self) -> list[RuleRequest]:
        forced = not self._running or self._decode_steps >= MAX_WAITING_TOKENS
        least = 1 if forced else int(len(self._running) * WAITING_SERVED_RATIO)
        joining: list[RuleRequest] = []
        prefill_tokens = 0
        while self._waiting and len(self._running) + len(joining) < self._slots:
            request = self._waiting[0]
            prompt = request.log.request.prompt_tokens
            # A prompt beyond the prefill budget is refused by the router; here it is let in alone.
            if joining and prefill_tokens + prompt > self._prefill_tokens:
                break
            if self._reserved(request) > self._free_tokens:
                break
            self._waiting.popleft()
            self._free_tokens -= self._reserved(request)
            prefill_tokens += prompt
            joining.append(request)
        if len(joining) < max(1, least):
            for request in reversed(joining):
                self._waiting.appendleft(request)
                self._free_tokens += self._reserved(request)
            return []
        return joining
