"""Run a job on a scheduling rule: a model of another system's, or a bound."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bros_sglang.evals.metrics.run import RunFacts, StateSample
from bros_sglang.evals.replay.feed import Feed
from bros_sglang.evals.replay.free_swap_rule import FreeSwapRule
from bros_sglang.evals.replay.job import JobResult
from bros_sglang.evals.replay.log import RequestLog
from bros_sglang.evals.replay.records import to_record
from bros_sglang.evals.replay.rule_loop import run_rule
from bros_sglang.evals.replay.tgi_rule import TgiRule
from bros_sglang.evals.replay.vllm_rule import VllmRule

if TYPE_CHECKING:
    from bros_sglang.evals.replay.job import Progress, ReplayJob
    from bros_sglang.evals.replay.rule_loop import Rule


def _rule(job: ReplayJob) -> Rule:
    if job.policy.engine == "vllm":
        return VllmRule(
            job.pool_tokens, job.max_running_requests, by_priority=bool(job.policy.rule["by_priority"])
        )
    if job.policy.engine == "free-swap":
        return FreeSwapRule(job.pool_tokens, job.max_running_requests)
    return TgiRule(job.pool_tokens, job.max_running_requests)


def run_on_rules(job: ReplayJob, progress: Progress | None = None) -> JobResult:
    """Run the job's workloads under the rule that its policy names."""
    rule = _rule(job)
    samples: list[StateSample] = []
    last_second = -1

    def on_pass(now_s: float) -> None:
        nonlocal last_second
        if int(now_s) == last_second:
            return
        last_second = int(now_s)
        waiting, running = rule.waiting(), rule.running()
        samples.append(
            StateSample(
                at_s=now_s,
                rt_tokens=sum(request.computed_tokens for request in running if request.is_rt),
                be_tokens=sum(request.computed_tokens for request in running if not request.is_rt),
                pool_tokens=job.pool_tokens,
                rt_waiting=sum(request.is_rt for request in waiting),
                be_waiting=sum(not request.is_rt for request in waiting),
                rt_running=sum(request.is_rt for request in running),
                be_running=sum(not request.is_rt for request in running),
            )
        )
        if progress is not None:
            progress(now_s)

    started = time.perf_counter()
    outcome = run_rule(
        rule,
        Feed(job.workloads, job.seconds),
        job.step_time,
        RequestLog,
        seconds=job.seconds,
        drain_s=job.drain_s,
        on_pass=on_pass,
    )
    wall_s = time.perf_counter() - started
    facts = RunFacts(
        policy=job.label,
        end_s=job.seconds,
        wall_s=wall_s,
        passes=outcome.passes,
        recomputed_tokens=rule.recomputed_tokens,
        loaded_back_tokens=0,
        samples=samples,
        extra={
            "configuration": job.policy.describe(),
            "replay": {
                "stopped_at_s": outcome.end_s,
                "device_busy_share": outcome.device_busy_s / outcome.end_s if outcome.end_s else None,
            },
            "real_time": {"passes_per_s": outcome.passes / wall_s, "sglang_share": None},
        },
    )
    return JobResult(job.label, [to_record(log) for log in outcome.logs], facts)
