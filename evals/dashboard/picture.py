"""Draw a Grafana dashboard's panels where the dashboard puts them, in Grafana's dark look."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from bros_sglang.evals.dashboard.prometheus import Series

_PAGE, _PANEL, _TEXT, _DIM, _GRID = "#111217", "#181b1f", "#d8d9e0", "#9a9ba6", "#2c2f36"
_COLUMN_IN, _ROW_IN = 0.62, 0.33  # one cell of the dashboard's grid of 24 columns
_HEAD_IN: Final = 0.75
_NAMED = {"red": "#F2495C", "orange": "#FF9830", "green": "#73BF69", "transparent": "none"}

# (seconds since the start, label) of what the load did
Phase = tuple[float, str]


def draw(
    dashboard: Mapping[str, Any],
    data: Mapping[int, Sequence[Series]],
    path: Path,
    *,
    start_s: float,
    phases: Sequence[Phase],
    caption: str,
) -> Path:
    """Write the picture; `data` holds the series of each panel's targets in order, by panel id."""
    panels = dashboard["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = 24 * _COLUMN_IN, rows * _ROW_IN + _HEAD_IN
    figure = Figure(figsize=(width, height), dpi=110, facecolor=_PAGE)
    figure.text(
        0.012, 1 - 0.27 / height, dashboard["title"], color=_TEXT, size=15, weight="bold", va="center"
    )
    figure.text(0.012, 1 - 0.55 / height, caption, color=_DIM, size=9, va="center")
    for panel in panels:
        place = panel["gridPos"]
        left, top = place["x"] * _COLUMN_IN, _HEAD_IN + place["y"] * _ROW_IN
        box = (left, height - top - place["h"] * _ROW_IN, place["w"] * _COLUMN_IN, place["h"] * _ROW_IN)
        _panel(figure, panel, data[panel["id"]], box, (width, height), start_s, phases)
    figure.savefig(path, facecolor=_PAGE, metadata={"Software": None})
    return path


def _panel(
    figure: Figure,
    panel: Mapping[str, Any],
    series: Sequence[Series],
    box: tuple[float, float, float, float],
    page: tuple[float, float],
    start_s: float,
    phases: Sequence[Phase],
) -> None:
    (left, bottom, width, height), gap = box, 0.05

    def area(x: float, y: float, w: float, h: float) -> Axes:  # inches on the page
        return figure.add_axes((x / page[0], y / page[1], w / page[0], h / page[1]))

    card = area(left + gap, bottom + gap, width - 2 * gap, height - 2 * gap)
    card.set_facecolor(_PANEL)
    card.set(xticks=[], yticks=[])
    for side in card.spines.values():
        side.set_color(_GRID)
    figure.text(
        (left + 0.16) / page[0],
        (bottom + height - 0.22) / page[1],
        panel["title"],
        color=_TEXT,
        size=10,
        weight="bold",
        va="center",
    )
    if panel["type"] == "stat":
        axes = area(left + gap, bottom + gap, width - 2 * gap, height * 0.36)
        _stat(figure, panel, series[0], axes, ((left + width / 2) / page[0], (bottom + 0.74) / page[1]))
        return
    axes = area(left + 0.74, bottom + 0.62, width - 0.92, height - 1.05)
    _lines(panel, series, axes, start_s)
    _phases(axes, phases)


def _stat(
    figure: Figure, panel: Mapping[str, Any], series: Series, axes: Axes, middle: tuple[float, float]
) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    known = [value for value in series[1] if not math.isnan(value)]
    last = known[-1] if known else math.nan
    colour = defaults["color"].get("fixedColor", "green")
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or last >= step["value"]:
            colour = step["color"]
    colour = _NAMED.get(colour, colour)
    text = _format(last, defaults["unit"], defaults.get("decimals"))
    figure.text(*middle, text, color=colour, size=21, weight="bold", ha="center", va="center")
    axes.axis("off")
    axes.fill_between(series[0], series[1], color=colour, alpha=0.25, lw=0)
    axes.plot(series[0], series[1], color=colour, lw=1)
    axes.margins(x=0, y=0.1)
    axes.set_ylim(bottom=0)


def _lines(panel: Mapping[str, Any], series: Sequence[Series], axes: Axes, start_s: float) -> None:
    config = panel["fieldConfig"]
    defaults, unit = config["defaults"], config["defaults"]["unit"]
    colours = {
        one["matcher"]["options"]: one["properties"][0]["value"]["fixedColor"] for one in config["overrides"]
    }
    names = [target["legendFormat"] for target in panel["targets"]]
    axes.set_facecolor(_PANEL)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.grid(color=_GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_DIM, labelsize=8, length=0)
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    below: dict[float, float] = {}
    for name, (times, values) in zip(names, series, strict=True):
        minutes = [(when - start_s) / 60 for when in times]
        colour = colours[name]
        if stacked:
            floor = [below.get(when, 0.0) for when in times]
            values = [low + value for low, value in zip(floor, values, strict=True)]
            below.update(zip(times, values, strict=True))
            axes.fill_between(minutes, floor, values, color=colour, alpha=0.45, lw=0)
        axes.plot(minutes, values, color=colour, lw=1 if stacked else 1.5, label=name)
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None:
            axes.axhline(step["value"], color=_NAMED[step["color"]], lw=0.9, ls="--")
    axes.margins(x=0.01)
    low, high = axes.get_ylim()
    axes.set_ylim(defaults.get("min", low), defaults.get("max", None) or high * 1.02)
    if unit == "percentunit":
        axes.set_ylim(top=1.03)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _format(value, unit, None)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.03, -0.1),
        ncols=len(names),
        frameon=False,
        fontsize=8,
        labelcolor=_TEXT,
        handlelength=1.2,
        columnspacing=1.2,
    )


def _phases(axes: Axes, phases: Sequence[Phase]) -> None:
    for start_s, label in phases:
        axes.axvline(start_s / 60, color=_DIM, lw=0.8, ls=":")
        axes.annotate(
            label,
            (start_s / 60, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 3),
            textcoords="offset points",
            color=_DIM,
            size=7,
        )


def _format(value: float, unit: str, decimals: int | None) -> str:
    """Write a value as Grafana does in these units."""
    if math.isnan(value):
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.{decimals or 0}f}%"
    if unit == "s":
        if value >= 1 or value == 0:
            return f"{value:.3g} s"
        return f"{value * 1e3:.3g} ms"
    tail = {"reqps": " req/s", "ops": " /s"}.get(unit, "")
    if value >= 10_000:
        return f"{value / 1000:.1f}K{tail}"
    return f"{value:,.{decimals}f}{tail}" if decimals is not None else f"{value:,.4g}{tail}"
