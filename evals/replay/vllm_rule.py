"""The scheduling rule of vLLM's V1 engine, as `vllm/v1/core/sched/scheduler.py:Scheduler.schedule` has it.

Running requests first, each as many tokens as it still needs, within one token budget; then waiting ones,
chunked to what is left of it. KV is taken as it is needed, in blocks. Where none is free, the running request
that came last (or, with priorities, the lowest) is preempted: its KV is dropped, it goes to the head of the
queue and is computed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.replay.rule_loop import Plan

if TYPE_CHECKING:
    from bros_sglang.evals.replay.rule_loop import RuleRequest

# vLLM's defaults for its OpenAI server on large GPUs (vllm/engine/arg_utils.py: max_num_batched_tokens
# 8192, max_num_seqs 256 in V1's first releases and 1024 since; the command line's slots are used instead).
TOKEN_BUDGET = 8192
BLOCK_TOKENS = 16


class VllmRule:
    """One engine; `by_priority` is `--scheduling-policy priority` with RT above BE."""

    def __init__(
        self, pool_tokens: int, slots: int, *, by_priority: bool, token_budget: int = TOKEN_BUDGET
    ) -> None:
        self._free_blocks = pool_tokens // BLOCK_TOKENS
        self._slots, self._by_priority, self._token_budget = slots, by_priority, token_budget
        self._waiting: list[RuleRequest] = []
        self._running: list[RuleRequest] = []
        self._blocks: dict[RuleRequest, int] = {}
        self._reached: dict[RuleRequest, int] = {}  # KV that a preempted request had
        self.recomputed_tokens = 0

    def _rank(self, request: RuleRequest) -> tuple[int, int]:
        """Lower runs first: (priority value, order of arrival)."""
        return (0 if request.is_rt or not self._by_priority else 1, request.sequence)

    def add(self, request: RuleRequest) -> None:
        """Queue a request."""
        self._waiting.append(request)
        if self._by_priority:
            self._waiting.sort(key=self._rank)

    def finish(self, request: RuleRequest) -> None:
        """Free what a finished request holds."""
        self._running.remove(request)
        self._free_blocks += self._blocks.pop(request, 0)
        self._reached.pop(request, None)

    def waiting(self) -> list[RuleRequest]:
        """Return the queue."""
        return self._waiting

    def running(self) -> list[RuleRequest]:
        """Return the running requests."""
        return self._running

    def _allocate(self, request: RuleRequest, new_tokens: int) -> bool:
        held = self._blocks.get(request, 0)
        needed = -(-(request.computed_tokens + new_tokens) // BLOCK_TOKENS) - held
        if needed > self._free_blocks:
            return False
        self._free_blocks -= needed
        self._blocks[request] = held + needed
        return True

    def _preempt(self) -> RuleRequest:
        victim = max(self._running, key=self._rank) if self._by_priority else self._running[-1]
        self._running.remove(victim)
        self._free_blocks += self._blocks.pop(victim, 0)
        self._reached[victim] = max(self._reached.get(victim, 0), victim.computed_tokens)
        victim.computed_tokens = 0
        victim.log.preemptions += 1
        self._waiting.insert(0, victim)
        if self._by_priority:
            self._waiting.sort(key=self._rank)
        return victim

    def plan(self) -> Plan | None:
        """Choose the next pass."""
        plan, budget = Plan(), self._token_budget
        chosen: dict[RuleRequest, int] = {}
        preempted = False
        index = 0
        while index < len(self._running) and budget > 0:
            request = self._running[index]
            new_tokens = min(request.known_tokens - request.computed_tokens, budget)
            while not self._allocate(request, new_tokens):
                preempted = True
                victim = self._preempt()
                budget += chosen.pop(victim, 0)
                if victim is request:
                    break
                index = self._running.index(request)
            else:
                chosen[request] = new_tokens
                budget -= new_tokens
                index += 1
        while not preempted and self._waiting and budget > 0 and len(self._running) < self._slots:
            request = self._waiting[0]
            new_tokens = min(request.known_tokens - request.computed_tokens, budget)
            if not self._allocate(request, new_tokens):
                break
            self._waiting.pop(0)
            self._running.append(request)
            chosen[request] = new_tokens
            budget -= new_tokens
        if not chosen:
            return None
        for request, new_tokens in chosen.items():
            self._take(plan, request, new_tokens)
        return plan

    def _take(self, plan: Plan, request: RuleRequest, new_tokens: int) -> None:
        if new_tokens == 1 and request.generated_tokens:
            plan.step.decode_rows += 1
            plan.step.decode_context_tokens += request.known_tokens
        else:
            plan.step.add_prefill(new_tokens, request.computed_tokens)
            reached = self._reached.get(request, 0)
            self.recomputed_tokens += max(
                0, min(reached, request.computed_tokens + new_tokens) - request.computed_tokens
            )
        request.computed_tokens += new_tokens
        if request.computed_tokens == request.known_tokens:
            plan.producing.append(request)
