"""Latency distributions per class: TTFT, TPOT and normalised latency, a curve per policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.report.log_axis import plain_log_axis
from bros_sglang.evals.report.palette import colours, new_figure
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.figure import Figure

    from bros_sglang.evals.metrics.record import RequestRecord

    Latency = Callable[[RequestRecord], float | None]

_LATENCIES: tuple[tuple[str, Latency], ...] = (
    ("TTFT, ms", lambda record: record.ttft_s),
    ("TPOT, ms", lambda record: record.tpot_s),
    ("normalised latency, ms/token", lambda record: record.normalized_latency_s),
)


def latency_cdf(records: Mapping[str, Sequence[RequestRecord]], title: str) -> Figure:
    """Return a picture of two rows, RT and BE, with the share of requests below each latency."""
    figure = new_figure(10, 5.2)
    grid = figure.subplots(2, len(_LATENCIES), sharey=True)
    colour = colours(list(records))
    for row, request_class in enumerate(RequestClass):
        for column, (label, latency) in enumerate(_LATENCIES):
            axes = grid[row][column]
            for policy, requests in records.items():
                values = np.sort(
                    [
                        value * 1000.0
                        for record in requests
                        if record.request_class is request_class and (value := latency(record)) is not None
                    ]
                )
                if len(values):
                    share = np.arange(1, len(values) + 1) / len(values)
                    axes.step(values, share, where="post", color=colour[policy], label=policy, linewidth=1.5)
            plain_log_axis(axes, "x")
            axes.tick_params(labelsize=8)
            axes.grid(alpha=0.25)
            axes.set_xlabel(f"{request_class.value.upper()} {label}", fontsize=9)
            if column == 0:
                axes.set_ylabel("share of requests", fontsize=9)
    entries = {
        text: handle
        for axes in grid.flat
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(entries.values()), list(entries), loc="outside right center", frameon=False, fontsize=9
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure
