"""What the demo says about its own figures, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def sentences(results: Sequence[dict[str, Any]]) -> list[str]:
    """Compare bros with stock fcfs, stock priorities and RT alone, as far as each was measured."""
    by_name = {result["policy"]: result for result in results}
    bros, fcfs, priority = (by_name.get(name) for name in ("bros", "fcfs", "priority"))
    if bros is None or bros["rt"]["attainment"] is None:
        return []
    said = [f"bros: {bros['rt']['attainment']:.1%} of chat requests within both targets"]
    others = [
        f"{other['rt']['attainment']:.1%} with {name}"
        for name, other in (("stock fcfs", fcfs), ("stock priorities", priority))
        if other is not None and other["rt"]["attainment"] is not None
    ]
    if others:
        said[0] += f" ({', '.join(others)})"
    said[0] += "."
    if fcfs is not None and fcfs["be"]["tokens_per_s"]:
        share = bros["be"]["tokens_per_s"] / fcfs["be"]["tokens_per_s"]
        said.append(f"Batch throughput: {share:.0%} of stock fcfs.")
    return said
