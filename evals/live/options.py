"""From the options of `bros eval live` to what is run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bros_sglang.evals.live.campaign import Campaign
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.load import LoadPlan
from bros_sglang.evals.live.policy_flags import LivePolicy, bounds_of, choose, engine
from bros_sglang.evals.live.sglang_command import TINY_ENV, TINY_FLAGS, sglang_command, tiny_model_in
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.evals.workloads.request import Workload


@dataclass(frozen=True)
class LiveOptions:
    """What the command line was given."""

    url: str | None
    label: str
    bounds: bool
    policies: str
    model_path: str | None
    server_args: str
    rt: str
    be: str
    seconds: float
    warmup: float
    rounds: int
    speed: float
    ttft_ms: float
    tpot_ms: float
    seed: int
    api: str
    servers: tuple[str, ...] = ()


def plan_of(options: LiveOptions) -> LoadPlan:
    """Build both workloads. Raises WorkloadError or LiveError with what to change."""
    if options.rt == options.be == "none":
        raise LiveError("--rt none --be none: there is nothing to send")
    return LoadPlan(
        _workload(options.rt, RequestClass.RT, options),
        _workload(options.be, RequestClass.BE, options),
        options.seconds,
        options.warmup,
    )


def _workload(spec: str, request_class: RequestClass, options: LiveOptions) -> Workload | None:
    if spec == "none":
        return None
    is_rt = request_class is RequestClass.RT
    return parse_workload(
        spec,
        request_class,
        seconds=options.warmup + options.seconds,
        speed=options.speed,
        seed=options.seed,
        ttft_ms=options.ttft_ms if is_rt else None,
        tpot_ms=options.tpot_ms if is_rt else None,
        exact_limit=True,  # `ignore_eos` makes the limit the length
    )


def policies_of(options: LiveOptions, plan: LoadPlan) -> list[LivePolicy]:
    """Return what is compared: SGLang's policies, or the server at the URL and its bounds."""
    if options.api not in ("auto", "sglang", "openai"):
        raise LiveError(f"--api {options.api!r}: give auto, sglang or openai")
    if options.url is not None:
        chosen = [LivePolicy(options.label, (), f"the server at {options.url}")]
        if options.servers:
            raise LiveError("--url measures a server that runs, --server starts some: give one of the two")
        if options.bounds:
            chosen = [*bounds_of(chosen[0]), *chosen]
    else:
        chosen = [] if options.policies == "none" else choose(options.policies)
        for text in options.servers:
            chosen.extend(_engine_policies(engine(text), plan, be_alone=options.bounds))
        names = [policy.name for policy in chosen]
        if not names:
            raise LiveError("--policies none: give a --server, then")
        if len(set(names)) != len(names):
            raise LiveError(f"{', '.join(names)}: give each --server a name of its own")
    for policy in chosen:
        if not (policy.rt and plan.rt) and not (policy.be and plan.be):
            raise LiveError(f"policy {policy.name!r} sends only a class whose workload is none")
    return chosen


def _engine_policies(policy: LivePolicy, plan: LoadPlan, *, be_alone: bool) -> list[LivePolicy]:
    """Return an engine's own RT alone, with `be_alone` its BE alone, and itself under both."""
    if plan.rt is None or plan.be is None:
        return [policy]
    rt_alone, be_only = bounds_of(policy)
    return [rt_alone, *([be_only] if be_alone else []), policy]


def campaign_of(options: LiveOptions, plan: LoadPlan, policies: list[LivePolicy], scratch: Path) -> Campaign:
    """Return the campaign; without a model path a tiny model is built in `scratch`."""
    if options.url is not None:
        return Campaign(plan, policies, options.rounds, url=options.url, api=options.api)
    try:
        extra = shlex.split(options.server_args)
    except ValueError as error:
        raise LiveError(f"--server-args: {error}") from error
    if options.model_path is None:
        model = str(tiny_model_in(scratch))
        command, env = sglang_command(model, [*TINY_FLAGS, *extra]), TINY_ENV
    else:
        model = options.model_path
        command, env = sglang_command(model, extra), {}
    return Campaign(
        plan, policies, options.rounds, command=command, model=model, env=dict(env), api=options.api
    )
