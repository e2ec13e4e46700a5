"""From what the command line says to jobs: workloads, pool, context, policies and their variants."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.replay.job import ReplayJob
from bros_sglang.evals.replay.policies import PolicySpec, policy_spec
from bros_sglang.evals.step_time.gpus import gpu_preset
from bros_sglang.evals.step_time.jitter import JitteredStepTime
from bros_sglang.evals.step_time.presets import step_time_model
from bros_sglang.evals.step_time.roofline import RooflineStepTime
from bros_sglang.evals.step_time.shapes import model_shape
from bros_sglang.evals.workloads.build import check_lengths
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bros_sglang.evals.workloads.request import Workload, WorkloadRequest

SWEEP_CHUNKS = (512, 1024, 2048, 4096, 8192)
LOOKED_AT = 20_000  # requests of an endless workload whose lengths are checked beforehand
CONTEXT_STEP = 4096


class OptionError(ValueError):
    """A command-line value that cannot be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The options of `bros eval replay`."""

    rt: str
    be: str
    policies: tuple[str, ...]
    model: str = "llama3-8b"
    gpu: str = "h200"
    tp: int = 1
    step_time: str = "roofline"
    step_jitter: float = 0.0
    pool_tokens: int | None = None
    max_running_requests: int = 256
    context_length: int | None = None
    page_size: int = 1
    seconds: float = 600.0
    drain_s: float = 120.0
    speed: float = 1.0
    ttft_ms: float = 400.0
    tpot_ms: float = 200.0
    seed: int = 0
    cpu_us_per_pass: float = 300.0
    sweep: bool = False
    flags: tuple[str, ...] = ()


def jobs_for(options: CompareOptions) -> list[ReplayJob]:
    """Return one job per policy, or per variant of it in a sweep.

    Raises:
        ValueError: one of the options cannot be used; the message says what to change. The subclasses are
            UnknownPresetError, StepTimeFileError, UnknownPolicyError, WorkloadError and OptionError.
    """
    _check_numbers(options)
    specs = [policy_spec(name) for name in options.policies]
    step_time = step_time_model(options.step_time, model=options.model, gpu=options.gpu, tp=options.tp)
    if options.step_jitter:
        step_time = JitteredStepTime(step_time, options.step_jitter, options.seed)
    pool_tokens = options.pool_tokens or _pool_of(options)
    rt, be = _workloads(options, specs)
    needed = 0
    for workload in (rt, be):
        if workload is not None:
            check_lengths(workload, pool_tokens=pool_tokens, first=LOOKED_AT)
            needed = max(needed, _longest(workload))
    context_length = options.context_length or -(-(needed + 8) // CONTEXT_STEP) * CONTEXT_STEP
    if needed + 8 > context_length:
        raise OptionError(
            f"--context-length {context_length} is too short: the longest request needs {needed + 8} tokens"
        )
    flags = _flags_by_policy(options.flags, options.policies)
    jobs = []
    for spec in specs:
        for label, variant in _variants(spec) if options.sweep else [(spec.name, spec)]:
            jobs.append(
                ReplayJob(
                    label=label,
                    policy=variant,
                    rt=rt,
                    be=be,
                    step_time=step_time,
                    pool_tokens=pool_tokens,
                    max_running_requests=options.max_running_requests,
                    context_length=context_length,
                    page_size=options.page_size,
                    seconds=options.seconds,
                    drain_s=options.drain_s,
                    cpu_s_per_pass=0.0 if step_time.blocking else options.cpu_us_per_pass * 1e-6,
                    frontend=step_time.frontend,
                    frontend_seed=options.seed,
                    extra_flags={**flags.get("", {}), **flags.get(spec.name, {})},
                )
            )
    return jobs


def _check_numbers(options: CompareOptions) -> None:
    if not options.policies:
        raise OptionError("--policies names none: give one or more, separated by commas")
    twice = {name for name in options.policies if options.policies.count(name) > 1}
    if twice:
        raise OptionError(f"--policies names {', '.join(sorted(twice))} twice")
    for name, value in (("--seconds", options.seconds), ("--speed", options.speed)):
        if not 0 < value < float("inf"):
            raise OptionError(f"{name} must be above 0, not {value}")
    for name, value in (("--ttft-ms", options.ttft_ms), ("--tpot-ms", options.tpot_ms)):
        if not 0 < value < float("inf"):
            raise OptionError(f"{name} must be above 0, not {value}")
    for name, count in (
        ("--pool-tokens", options.pool_tokens),
        ("--max-running-requests", options.max_running_requests),
        ("--page-size", options.page_size),
        ("--tp", options.tp),
    ):
        if count is not None and count < 1:
            raise OptionError(f"{name} must be at least 1, not {count}")
    if options.cpu_us_per_pass < 0:
        raise OptionError(f"--cpu-us-per-pass must be 0 or more, not {options.cpu_us_per_pass}")


def _pool_of(options: CompareOptions) -> int:
    roofline = RooflineStepTime(model_shape(options.model), gpu_preset(options.gpu), options.tp)
    try:
        return roofline.pool_tokens() // options.page_size * options.page_size
    except ValueError as error:
        raise OptionError(str(error)) from error


def _workloads(
    options: CompareOptions, specs: Sequence[PolicySpec]
) -> tuple[Workload | None, Workload | None]:
    loads = {spec.load for spec in specs}
    rt = be = None
    if loads & {"both", "rt"}:
        rt = parse_workload(
            options.rt,
            RequestClass.RT,
            seconds=options.seconds,
            speed=options.speed,
            seed=options.seed,
            ttft_ms=options.ttft_ms,
            tpot_ms=options.tpot_ms,
        )
    if loads & {"both", "be"}:
        be = parse_workload(
            options.be, RequestClass.BE, seconds=options.seconds, speed=options.speed, seed=options.seed
        )
    return rt, be


def _longest(workload: Iterable[WorkloadRequest]) -> int:
    return max(request.prompt_tokens + request.max_new_tokens for request in islice(workload, LOOKED_AT))


def _variants(spec: PolicySpec) -> list[tuple[str, PolicySpec]]:
    """Return the variants of a stock policy in a sweep: every chunk size, with and without mixed chunks."""
    if spec.engine != "sglang" or spec.load != "both" or spec.flags.get("schedule-policy") == "bros":
        return [(spec.name, spec)]
    variants = []
    for chunk in SWEEP_CHUNKS:
        for mixed in (False, True):
            flags = {**spec.flags, "chunked-prefill-size": chunk, "enable-mixed-chunk": mixed}
            label = f"{spec.name}/chunk={chunk}{',mixed' if mixed else ''}"
            variants.append((label, replace(spec, flags=flags)))
    return variants


def _flags_by_policy(items: Iterable[str], policies: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read `[POLICY:]FLAG=VALUE` items; the key "" holds what all policies share."""
    flags: dict[str, dict[str, Any]] = {}
    for item in items:
        name, separator, text = item.partition("=")
        policy, colon, field = name.removeprefix("--").rpartition(":")
        if not separator or not field:
            raise OptionError(
                f"--flag {item!r}: write [POLICY:]FLAG=VALUE, such as bros:chunked-prefill-size=2048"
            )
        if colon and policy not in policies:
            raise OptionError(f"--flag {item!r}: {policy!r} is not among --policies")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        flags.setdefault(policy, {})[field.removeprefix("--").replace("_", "-")] = value
    return flags
