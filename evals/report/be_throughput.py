"""BE throughput: a bar per policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from bros_sglang.evals.report.palette import colours, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_be_throughput(axes: Axes, results: Sequence[dict[str, Any]]) -> None:
    """Draw BE tokens per second (prompt and output) of the policies that ran any."""
    shown = [result for result in results if result["be"].get("requests", 1) and result["be"]["tokens_per_s"]]
    names = [result["policy"] for result in shown]
    colour = colours([result["policy"] for result in results])
    values = [result["be"]["tokens_per_s"] for result in shown]
    bars = axes.barh(names, values, color=[colour[name] for name in names], height=0.62)
    axes.bar_label(bars, labels=[f" {value:,.0f}" for value in values], fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("BE tokens/s")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)


def be_throughput(results: Sequence[dict[str, Any]], title: str) -> Figure:
    """Return the picture on its own."""
    figure = new_figure(8, 0.9 + 0.4 * max(2, len(results)))
    axes = figure.subplots()
    draw_be_throughput(axes, results)
    axes.set_title(title, loc="left", fontsize=11)
    return figure
