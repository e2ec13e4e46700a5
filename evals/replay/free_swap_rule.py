"""A bound, not a system: real-time requests first, and best-effort ones give way and come back for nothing.

In each step every real-time row decodes and real-time prompts take the chunk in order of arrival; best-
effort requests have what is left of chunk and pool. Those for which there is no room just now are out of
the pool, at no cost, and back in it in the step that has room. No policy that puts real-time requests first
can fill the pool better: one without a host cache computes again what it takes back, or leaves room for
what may come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.replay.rule_loop import Plan

if TYPE_CHECKING:
    from bros_sglang.evals.replay.rule_loop import RuleRequest

CHUNK_TOKENS = 1024  # as the stock policies that mix


class FreeSwapRule:
    """One engine."""

    def __init__(self, pool_tokens: int, slots: int, *, chunk_tokens: int = CHUNK_TOKENS) -> None:
        self._pool_tokens, self._slots, self._chunk_tokens = pool_tokens, slots, chunk_tokens
        self._requests: list[RuleRequest] = []  # in order of arrival
        self._running: list[RuleRequest] = []
        self.recomputed_tokens = 0

    def add(self, request: RuleRequest) -> None:
        """Take in a request."""
        self._requests.append(request)

    def finish(self, request: RuleRequest) -> None:
        """Let go of a request that ended."""
        self._requests.remove(request)

    def waiting(self) -> list[RuleRequest]:
        """Return those that are not in the pool."""
        running = set(map(id, self._running))
        return [request for request in self._requests if id(request) not in running]

    def running(self) -> list[RuleRequest]:
        """Return those that were in the last step."""
        return self._running

    def plan(self) -> Plan | None:
        """Choose the next step."""
        plan = Plan()
        self._running = []
        room, chunk = self._pool_tokens, self._chunk_tokens
        # A real-time request that has begun keeps its room: its rows come before prompts that would take it.
        # Otherwise by arrival: the sort is stable.
        for request in sorted(self._requests, key=lambda r: (not r.is_rt, r.is_rt and not r.computed_tokens)):
            if len(self._running) == self._slots:
                break
            new = request.known_tokens - request.computed_tokens
            decodes = request.generated_tokens > 0
            wanted = new if decodes else min(new, chunk)
            # A best-effort request is let in with room for its prompt.
            holds = request.computed_tokens + wanted if request.is_rt else request.known_tokens
            if wanted <= 0 or holds > room:
                continue
            room -= holds
            self._running.append(request)
            if decodes:
                plan.step.decode_rows += 1
                plan.step.decode_context_tokens += request.known_tokens
            else:
                plan.step.add_prefill(wanted, request.computed_tokens)
                chunk -= wanted
            request.computed_tokens += wanted
            if request.computed_tokens == request.known_tokens:
                plan.producing.append(request)
        return plan if self._running else None
