"""Stage load: S1 at each RT rate: stock fcfs, stock priority with preemption, bros, each class alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.loads import measured, mixed_plan
from bros_sglang.evals.live.policy_flags import POLICIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.gpu.run import GpuRun

# rt-alone, be-alone and fcfs share a server. What the wanted figures need comes first.
POLICY_ORDER = ("bros", "rt-alone", "fcfs", "be-alone", "priority")
NEEDS = (("start", "stock"),)


def cell_name(policy: str, rate: float) -> str:
    """Return the name of a cell: `bros-3.3`; BE alone has no rate."""
    return policy if policy == "be-alone" else f"{policy}-{rate:g}"


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell per policy and rate, those of one server behind each other."""
    return _cells_of(run, POLICY_ORDER, run.scale.rates)


def mixed_cells(run: GpuRun) -> list[Cell]:
    """Return the cells of stock at its best: priorities, priority eviction and mixed chunks."""
    return _cells_of(run, ("priority-mixed",), run.scale.rates)


def at_once_cells(run: GpuRun) -> list[Cell]:
    """Return the cell that shows what late launches are worth, and that the device does not wait for them."""
    return _cells_of(run, ("bros-at-once",), run.scale.rates[-1:])


def _cells_of(run: GpuRun, policies: Sequence[str], rates: Sequence[float]) -> list[Cell]:
    return [
        Cell(
            "load",
            cell_name(policy, rate),
            run.scale.run_s(),
            partial(_measure, run, policy, rate),
            NEEDS,
            server=" ".join(POLICIES[policy].flags),
            start_s=run.scale.start_s,
        )
        for policy in policies
        for rate in (rates[:1] if policy == "be-alone" else rates)
    ]


def _measure(run: GpuRun, policy: str, rate: float) -> dict[str, Any]:
    server = run.server(run.command(run.arguments(policy)), f"load-{policy}")
    plan = mixed_plan(run.scale, rate)
    result = measured(run, policy, server.url, plan, f"load-{cell_name(policy, rate)}")
    return {"rate": rate, **result}
