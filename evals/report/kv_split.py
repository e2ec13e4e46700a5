"""Who holds the KV pool: running RT, running BE, evictable cache, free; a bar per policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bros_sglang.evals.report.palette import new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

_PARTS = (
    ("rt_mean", "running RT", "#0072B2"),
    ("be_mean", "running BE", "#E69F00"),
    ("cached_mean", "cache", "#999999"),
)


def kv_split(results: Sequence[dict[str, Any]], title: str) -> Figure | None:
    """Return the picture of mean shares over the run, or None where no policy was sampled."""
    shown = [r for r in results if (r.get("kv_use") or {}).get("rt_mean") is not None]
    if not shown:
        return None
    figure = new_figure(8, 1.1 + 0.4 * max(2, len(shown)))
    axes = figure.subplots()
    names = [result["policy"] for result in shown]
    left = [0.0] * len(shown)
    for key, label, colour in _PARTS:
        shares = [100.0 * (result["kv_use"][key] or 0.0) for result in shown]
        axes.barh(names, shares, left=left, color=colour, label=label, height=0.62)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.barh(
        names,
        [max(0.0, 100.0 - used) for used in left],
        left=left,
        color="white",
        edgecolor="#cccccc",
        label="free",
        height=0.62,
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("mean share of the KV pool, %")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
    axes.set_title(title, loc="left", fontsize=11)
    return figure
