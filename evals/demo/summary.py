"""What the demo says about its own figures, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bros_sglang.evals.live.table import format_share

if TYPE_CHECKING:
    from collections.abc import Sequence


LATE_MS = 20.0


def sentences(results: Sequence[dict[str, Any]]) -> list[str]:
    """Compare bros with stock fcfs, stock priorities and RT alone, as far as each was measured."""
    by_name = {result["policy"]: result for result in results}
    bros, fcfs, priority = (by_name.get(name) for name in ("bros", "fcfs", "priority"))
    if bros is None or bros["rt"]["attainment"] is None:
        return []
    said = [f"bros: {format_share(bros['rt']['attainment'])} of chat requests within both targets"]
    others = [
        f"{format_share(other['rt']['attainment'])} with {name}"
        for name, other in (("stock fcfs", fcfs), ("stock priorities", priority))
        if other is not None and other["rt"]["attainment"] is not None
    ]
    if others:
        said[0] += f" ({', '.join(others)})"
    said[0] += "."
    if fcfs is not None and fcfs["be"]["tokens_per_s"]:
        share = bros["be"]["tokens_per_s"] / fcfs["be"]["tokens_per_s"]
        said.append(f"Batch throughput: {share * 100:.0f} % of stock fcfs.")
    return said


def late_client(results: Sequence[dict[str, Any]]) -> str | None:
    """Say so where this machine was too busy for the figures to be trusted; None where it was not.

    The client needs a twentieth of a core. When its arrivals go out late, something else has the cores,
    and the server's latencies are as much that something's doing.
    """
    lags = [(result.get("client") or {}).get("lag_ms_p99") or 0.0 for result in results]
    if max(lags, default=0.0) <= LATE_MS:
        return None
    return (
        f"Note: requests went out up to {max(lags):.0f} ms late (p99), so this machine was busy with other "
        "work and the latencies are too high. Try again on a quiet one."
    )
