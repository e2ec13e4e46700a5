"""Run a job on SGLang's scheduler."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bros_sglang.evals.metrics.run import RunFacts, StateSample
from bros_sglang.evals.replay.build import SchedulerConfig, build_scheduler
from bros_sglang.evals.replay.job import JobResult, Progress, ReplayJob
from bros_sglang.evals.replay.records import to_record
from bros_sglang.evals.replay.run import ReplayOptions, ReplayOutcome, replay
from bros_sglang.evals.replay.stub_model import write_stub_model


def run_on_scheduler(job: ReplayJob, progress: Progress | None = None) -> JobResult:
    """Build the scheduler that the policy asks for and replay the job's workloads; one per process."""
    flags: dict[str, Any] = {**job.policy.flags, **job.extra_flags}
    with tempfile.TemporaryDirectory(prefix="bros-replay-") as folder:
        tempfile.tempdir = folder  # SGLang names its sockets in the temporary folder and leaves them there
        try:
            model = write_stub_model(Path(folder) / "model", job.context_length)
            scheduler = build_scheduler(
                SchedulerConfig(
                    model_path=model,
                    pool_tokens=job.pool_tokens,
                    max_running_requests=job.max_running_requests,
                    context_length=job.context_length,
                    page_size=job.page_size,
                    flags=flags,
                )
            )
            if job.policy.engine == "round-robin":
                from bros_sglang.evals.replay.round_robin import alternate_classes

                alternate_classes(scheduler)
            outcome = replay(
                scheduler,
                job.workloads,
                job.step_time,
                job.policy.tagging,
                ReplayOptions(
                    seconds=job.seconds,
                    drain_s=job.drain_s,
                    cpu_s_per_pass=job.cpu_s_per_pass,
                    frontend=job.frontend,
                    frontend_seed=job.frontend_seed,
                ),
                progress=progress,
            )
        finally:
            tempfile.tempdir = None
    return JobResult(job.label, [to_record(log) for log in outcome.logs], _facts(job, outcome, flags))


def _facts(job: ReplayJob, outcome: ReplayOutcome, flags: dict[str, Any]) -> RunFacts:
    sglang_share = 1.0 - outcome.own_wall_s / outcome.wall_s
    return RunFacts(
        policy=job.label,
        start_s=job.measure_from_s,
        end_s=job.seconds,
        wall_s=outcome.wall_s,
        passes=outcome.passes,
        recomputed_tokens=outcome.counts.recomputed_tokens,
        loaded_back_tokens=outcome.counts.loaded_back_tokens,
        samples=[StateSample(**sample) for sample in outcome.samples],
        step_times_s=outcome.step_times_s,
        extra={
            "configuration": {**job.policy.describe(), "flags": flags},
            "replay": {
                "stopped_at_s": outcome.end_s,
                "passes_by_mode": dict(sorted(outcome.counts.passes.items())),
                "prefilled_tokens": outcome.counts.prefill_tokens,
                "device_busy_share": outcome.counts.device_busy_s / outcome.end_s if outcome.end_s else None,
                "modules_with_real_time": outcome.modules_with_real_time,
            },
            # Depends on this machine and its load, as `wall_s` does; all else is the same in every run.
            "real_time": {
                "cpu_s": outcome.cpu_s,
                "passes_per_s": outcome.passes / outcome.wall_s,
                "passes_per_cpu_s": outcome.passes / outcome.cpu_s if outcome.cpu_s else None,
                "sglang_share": sglang_share,
                "sglang_cpu_us_per_pass": 1e6 * outcome.cpu_s * sglang_share / max(1, outcome.passes),
            },
        },
    )
