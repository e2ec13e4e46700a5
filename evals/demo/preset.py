"""What the demo runs: small enough for two cores, busy enough that scheduling decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.live.load import LoadPlan
from bros_sglang.evals.live.policy_flags import POLICIES
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from bros_sglang.evals.live.policy_flags import LivePolicy

TTFT_MS, TPOT_MS = 100.0, 20.0
RT_SPEC = "sharegpt:rate=6,scale=8"
BE_SPEC = "uniform:prompt=128-256,output=32-128,outstanding=64"
# rt-alone and fcfs share a server, so they stand next to each other.
POLICY_NAMES = ("rt-alone", "fcfs", "priority", "bros")
SECONDS, WARMUP_S = 35.0, 5.0


def demo_policies() -> list[LivePolicy]:
    """Return the policies in the order of the table."""
    return [POLICIES[name] for name in POLICY_NAMES]


def demo_plan(seconds: float, seed: int) -> LoadPlan:
    """Return the mixed load: chat at 6 requests/s beside 64 batch requests that never let up."""
    rt = parse_workload(
        RT_SPEC,
        RequestClass.RT,
        seconds=WARMUP_S + seconds,
        seed=seed,
        ttft_ms=TTFT_MS,
        tpot_ms=TPOT_MS,
        exact_limit=True,
    )
    be = parse_workload(BE_SPEC, RequestClass.BE, seed=seed, exact_limit=True)
    return LoadPlan(rt, be, seconds, WARMUP_S)
