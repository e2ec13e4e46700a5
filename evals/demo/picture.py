"""The demo's picture: RT latency over time per policy, and beside it what BE got done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bros_sglang.evals.report.be_throughput import draw_be_throughput
from bros_sglang.evals.report.palette import new_figure, save
from bros_sglang.evals.report.rt_timeline import draw_rt_timeline

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bros_sglang.evals.metrics.record import RequestRecord


def write_picture(
    path: Path, results: Sequence[dict[str, Any]], records: Mapping[str, Sequence[RequestRecord]]
) -> Path:
    """Write the picture; `records` holds one round per policy."""
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2, width_ratios=[2.6, 1])
    draw_rt_timeline(left, records)
    left.set_title("Chat latency while batch work runs", loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=len(records), frameon=False, fontsize=9)
    draw_be_throughput(right, results)
    right.set_title("Batch work done", loc="left", fontsize=11)
    return save(figure, path)
