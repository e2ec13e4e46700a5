"""Loads on a server of this run: built from the scale's specs, measured, and kept as one row per request."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import httpx

from bros_sglang.evals.live import probe
from bros_sglang.evals.live.campaign import measure_url
from bros_sglang.evals.live.load import LoadPlan
from bros_sglang.evals.live.policy_flags import POLICIES
from bros_sglang.evals.metrics.write import write_requests
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.evals.gpu.run import GpuRun
    from bros_sglang.evals.gpu.scale import Scale
    from bros_sglang.evals.live.load import LoadState


def mixed_plan(scale: Scale, rate: float, *, be: str | None = None, seconds: float | None = None) -> LoadPlan:
    """Return S1 at one RT rate: the same requests for every policy."""
    seconds = scale.seconds if seconds is None else seconds
    end_s = scale.warmup_s + seconds
    rt = parse_workload(
        scale.rt.format(rate=rate),
        RequestClass.RT,
        seconds=end_s,
        ttft_ms=scale.ttft_ms,
        tpot_ms=scale.tpot_ms,
        exact_limit=True,  # `ignore_eos` makes the limit the length
    )
    return LoadPlan(
        rt, parse_workload(be or scale.be, RequestClass.BE, exact_limit=True), seconds, scale.warmup_s
    )


def full_house_plan(scale: Scale, seconds: float) -> LoadPlan:
    """Return a load that keeps `running` requests decoding, a quarter of them RT."""
    spec = scale.full_house_be
    rt_seats = scale.running // 4

    def seats(count: int) -> str:
        return spec.rpartition("=")[0] + f"={count}"

    rt = parse_workload(
        seats(rt_seats), RequestClass.RT, seed=1, ttft_ms=60_000.0, tpot_ms=60_000.0, exact_limit=True
    )
    be = parse_workload(seats(scale.running - rt_seats), RequestClass.BE, exact_limit=True)
    return LoadPlan(rt, be, seconds, scale.warmup_s, grace_s=0.0)


def measured(
    run: GpuRun,
    policy: str,
    url: str,
    plan: LoadPlan,
    name: str,
    on_tick: Callable[[LoadState], None] | None = None,
) -> dict[str, Any]:
    """Measure one policy under a plan; its requests go to `requests/NAME.parquet`."""
    outcome = measure_url(url, probe.identify(url), plan, POLICIES[policy], 0, on_tick)
    write_requests(run.folder("requests"), [(policy, 1, outcome.run.records)], name=name)
    result = dict(outcome.result)
    # Says whether lengths are a trace's or a formula's.
    result["workloads"] = [load.name for load in (plan.rt, plan.be) if load is not None]
    failed = result["rt"]["failed"] + result["be"]["failed"]
    if failed:
        result["first_error"] = next((r.error for r in outcome.run.records if r.error), "")
    if policy == "bros":
        result["status"] = bros_status(url)
    return result


def bros_status(url: str) -> dict[str, Any]:
    """Return what a bros server says of itself, or nothing where it does not."""
    with contextlib.suppress(httpx.HTTPError, ValueError):
        status: dict[str, Any] = httpx.get(f"{url}/bros/status", timeout=10.0, trust_env=False).json()
        return status
    return {}
