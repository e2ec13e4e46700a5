"""Which variant of a swept policy did best."""

from __future__ import annotations

from typing import Any


def mark_best(results: list[dict[str, Any]]) -> None:
    """Give each result of a sweep `{"sweep": {"of", "best"}}`.

    Best is the highest share of RT within both targets; among variants within 0.1 % of it, the most BE
    tokens per second: the setting that an operator who must keep the targets would choose.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        base, slash, _ = result["policy"].partition("/")
        if slash:
            groups.setdefault(base, []).append(result)
    for base, variants in groups.items():
        reached = max(variant["rt"]["attainment"] or 0.0 for variant in variants)
        fit = [v for v in variants if (v["rt"]["attainment"] or 0.0) >= reached - 0.001]
        best = max(fit, key=lambda variant: float(variant["be"]["tokens_per_s"]))
        for variant in variants:
            variant["sweep"] = {"of": base, "best": variant is best}
