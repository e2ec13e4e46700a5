"""One column of a comparison: everything a process needs to know to replay it, and what it sends back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.step_time.frontend import Frontend

if TYPE_CHECKING:
    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.metrics.run import RunFacts
    from bros_sglang.evals.replay.policies import PolicySpec
    from bros_sglang.evals.step_time.step import StepTimeModel
    from bros_sglang.evals.workloads.request import Workload

Progress = Callable[[float], None]  # virtual seconds


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """One policy on one workload; `label` names it in the results (in a sweep, with the variant)."""

    label: str
    policy: PolicySpec
    rt: Workload | None
    be: Workload | None
    step_time: StepTimeModel
    pool_tokens: int
    max_running_requests: int
    context_length: int
    page_size: int
    seconds: float
    drain_s: float
    cpu_s_per_pass: float
    frontend: Frontend = field(default_factory=Frontend)
    frontend_seed: int = 0
    measure_from_s: float = 0.0  # what comes before warms up
    extra_flags: dict[str, Any] = field(default_factory=dict)

    @property
    def workloads(self) -> list[Workload]:
        """The workloads that this policy sees: RT alone and BE alone see one."""
        wanted = {"both": (self.rt, self.be), "rt": (self.rt,), "be": (self.be,)}[self.policy.load]
        return [workload for workload in wanted if workload is not None]


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a finished job sends back."""

    label: str
    records: list[RequestRecord]
    facts: RunFacts


class ReplayFailedError(RuntimeError):
    """A replay that did not finish; the message names the policy, the cause and the log."""
