"""The loop around a model of another system's scheduler: same clients, step time, pool and metrics as ours.

These are models of scheduling rules, not the systems: no prefix cache, no CPU time per pass (which favours
them), no kernels of their own. Each rule names the source that it follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bros_sglang.evals.step_time.step import Step
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.evals.replay.feed import Feed
    from bros_sglang.evals.replay.log import RequestLog
    from bros_sglang.evals.step_time.step import StepTimeModel


@dataclass(slots=True, eq=False)
class RuleRequest:
    """One request inside a rule's scheduler; token counts are of KV that it holds or has made."""

    log: RequestLog
    sequence: int  # order of arrival
    computed_tokens: int = 0  # KV held
    generated_tokens: int = 0

    @property
    def known_tokens(self) -> int:
        """Prompt and output so far: what has to be in the KV cache before the next token."""
        return self.log.request.prompt_tokens + self.generated_tokens

    @property
    def is_rt(self) -> bool:
        """Tell whether it is a real-time request."""
        return self.log.request.request_class is RequestClass.RT


@dataclass(slots=True)
class Plan:
    """One pass: what it costs, and who gets a token at its end."""

    step: Step = field(default_factory=Step)
    producing: list[RuleRequest] = field(default_factory=list)


class Rule(Protocol):
    """A scheduler's rule; it owns queue, batch and pool."""

    recomputed_tokens: int

    def add(self, request: RuleRequest) -> None:
        """Take in a request that has arrived."""

    def plan(self) -> Plan | None:
        """Choose the next pass; None where nothing can run."""

    def finish(self, request: RuleRequest) -> None:
        """Let go of a request that has made its last token."""

    def waiting(self) -> list[RuleRequest]:
        """Return the requests that wait."""

    def running(self) -> list[RuleRequest]:
        """Return the requests that hold KV."""


@dataclass(slots=True)
class RuleOutcome:
    """What a run of a rule yields."""

    logs: list[RequestLog]
    passes: int
    end_s: float
    device_busy_s: float


def run_rule(
    rule: Rule,
    feed: Feed,
    step_time: StepTimeModel,
    new_log: Callable[..., RequestLog],
    *,
    seconds: float,
    drain_s: float,
    on_pass: Callable[[float], None],
) -> RuleOutcome:
    """Run a rule until `seconds`, and then until the RT requests are done or `drain_s` more has passed."""
    now_s, busy_s, passes = 0.0, 0.0, 0
    logs: list[RequestLog] = []
    rt_open = 0
    while True:
        for request, arrival_s in feed.due(now_s):
            log = new_log(request, arrival_s)
            logs.append(log)
            rt_open += request.request_class is RequestClass.RT
            rule.add(RuleRequest(log, len(logs)))
        on_pass(now_s)
        next_s = feed.next_arrival_s()
        if now_s >= seconds and (now_s >= seconds + drain_s or (rt_open == 0 and next_s is None)):
            break
        plan = rule.plan()
        if plan is None:
            if next_s is None:
                break
            now_s = max(now_s, next_s)
            continue
        step_s = step_time.step_s(plan.step)
        now_s, busy_s, passes = now_s + step_s, busy_s + step_s, passes + 1
        for running in plan.producing:
            running.generated_tokens += 1
            running.log.token_s.append(now_s)
            if running.generated_tokens == running.log.request.output_tokens:
                running.log.finish_s = now_s
                rule.finish(running)
                rt_open -= running.is_rt
                feed.finished(running.log.request.rid, now_s)
    return RuleOutcome(logs, passes, now_s, busy_s)
