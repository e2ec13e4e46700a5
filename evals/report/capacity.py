"""Capacity: how much RT a policy carries at 99 % attainment, and what BE gets meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.report.palette import colours, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bros_sglang.evals.report.result_set import ResultSet

WANTED = 0.99
ALIKE = 1.2  # Poisson arrivals at one rate may differ by this much in short runs


@dataclass(frozen=True, slots=True)
class CapacityPoint:
    """One policy at one RT rate."""

    policy: str
    rt_per_s: float
    attainment: float
    be_tokens_per_s: float


def capacity_points(sets: Sequence[ResultSet]) -> list[CapacityPoint]:
    """Return the points of all folders, by policy and rate."""
    points = [
        CapacityPoint(
            result["policy"],
            result["rt"]["requests"] / result["seconds"],
            result["rt"]["attainment"],
            result["be"]["tokens_per_s"] or 0.0,
        )
        for result_set in sets
        for result in result_set.results
        if result.get("seconds") and result["rt"].get("requests") and result["rt"]["attainment"] is not None
    ]
    return sorted(points, key=lambda point: (point.policy, point.rt_per_s))


def capacities(points: Sequence[CapacityPoint], wanted: float = WANTED) -> list[dict[str, Any]]:
    """Return per policy the highest measured RT rate up to which every rate reached `wanted`, and BE there.

    A rate above one that failed does not count, so that one lucky run gives no capacity.
    """
    rows = []
    for policy in dict.fromkeys(point.policy for point in points):
        best: CapacityPoint | None = None
        for point in (point for point in points if point.policy == policy):
            if point.attainment < wanted:
                break
            best = point
        rows.append(
            {
                "policy": policy,
                "attainment_wanted": wanted,
                "rt_requests_per_s": None if best is None else best.rt_per_s,
                "be_tokens_per_s": None if best is None else best.be_tokens_per_s,
            }
        )
    return rows


def capacity_curve(sets: Sequence[ResultSet]) -> Figure | None:
    """Return attainment and BE throughput over the RT rate, or None where the rates are all alike."""
    points = capacity_points(sets)
    rates = [point.rt_per_s for point in points]
    if not rates or max(rates) < ALIKE * min(rates):
        return None
    figure = new_figure(10, 3.8)
    left, right = figure.subplots(1, 2)
    policies = list(dict.fromkeys(result["policy"] for s in sets for result in s.results))
    colour = colours(policies)
    reached = {row["policy"]: row for row in capacities(points)}
    for policy in policies:
        mine = [point for point in points if point.policy == policy]
        if not mine:
            continue
        at = [point.rt_per_s for point in mine]
        left.plot(at, [100 * p.attainment for p in mine], "o-", color=colour[policy], label=policy, ms=4)
        if any(point.be_tokens_per_s for point in mine):
            right.plot(at, [point.be_tokens_per_s for point in mine], "o-", color=colour[policy], ms=4)
            best = reached[policy]
            if best["rt_requests_per_s"] is not None:
                right.plot(
                    best["rt_requests_per_s"], best["be_tokens_per_s"], "*", color=colour[policy], ms=14
                )
    left.axhline(100 * WANTED, color="black", linestyle="--", linewidth=1)
    left.set_ylabel("RT within both targets, %")
    right.set_ylabel("BE tokens/s")
    right.set_title(f"★ highest RT rate at {WANTED:.0%}", loc="right", fontsize=9)
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.set_xlabel("RT requests/s")
        axes.grid(alpha=0.25)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    figure.suptitle("Capacity", x=0.01, ha="left", fontsize=11)
    return figure
