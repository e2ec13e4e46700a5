"""RT latency over time: a dot per request at its arrival, and the running median per policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.report.log_axis import plain_log_axis
from bros_sglang.evals.report.palette import colours, new_figure
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bros_sglang.evals.metrics.record import RequestRecord

WINDOW = 15  # requests in the running median


def draw_rt_timeline(axes: Axes, records: Mapping[str, Sequence[RequestRecord]]) -> None:
    """Draw TTFT in milliseconds (logarithmic) over arrival time in seconds, and the target as a line."""
    colour = colours(list(records))
    targets_ms: set[float] = set()
    for policy, requests in records.items():
        rt = [
            r
            for r in requests
            if r.request_class is RequestClass.RT and r.ttft_s is not None and r.ttft_s > 0
        ]
        if not rt:
            continue
        rt.sort(key=lambda record: record.arrival_s)
        targets_ms |= {record.ttft_ms for record in rt if record.ttft_ms is not None}
        at_s = np.array([record.arrival_s for record in rt])
        ttft_ms = np.array([(record.ttft_s or 0.0) * 1000.0 for record in rt])
        axes.scatter(at_s, ttft_ms, s=5, alpha=0.35, color=colour[policy], linewidths=0, rasterized=True)
        if len(rt) >= WINDOW:
            windows = np.lib.stride_tricks.sliding_window_view(ttft_ms, WINDOW)
            middle = at_s[WINDOW // 2 : WINDOW // 2 + len(windows)]
            axes.plot(middle, np.median(windows, axis=1), color=colour[policy], linewidth=1.8, label=policy)
        else:
            axes.plot([], [], color=colour[policy], label=policy)
    plain_log_axis(axes, "y")
    for target_ms in sorted(targets_ms)[:3]:
        axes.axhline(target_ms, color="black", linestyle="--", linewidth=1)
        axes.annotate(
            f"target {target_ms:g} ms",
            (0.995, target_ms),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
        )
    axes.set_xlabel("arrival, seconds")
    axes.set_ylabel("RT time to first token, ms")
    axes.grid(alpha=0.25)


def rt_timeline(records: Mapping[str, Sequence[RequestRecord]], title: str) -> Figure:
    """Return the picture on its own."""
    figure = new_figure(9, 4)
    axes = figure.subplots()
    draw_rt_timeline(axes, records)
    axes.set_title(title, loc="left", fontsize=11)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    return figure
