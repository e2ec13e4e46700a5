"""The picture of a validation: TTFT of RT, live and replayed, per load and policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

from bros_sglang.evals.report.log_axis import plain_log_axis

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.replay.validate import Comparison

mpl.use("Agg")


def draw_validation(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write a PNG: per load and policy the CDFs of every round, and below the ratios of all figures."""
    from matplotlib import pyplot as plt  # after the backend is chosen

    figure, panels = plt.subplots(
        2, len(comparisons), figsize=(3.2 * len(comparisons), 6), dpi=150, squeeze=False
    )
    for column, comparison in enumerate(comparisons):
        upper, lower = panels[0][column], panels[1][column]
        for label, runs, style in (("live", comparison.live, "-"), ("replay", comparison.replayed, "--")):
            for number, run in enumerate(runs):
                times_ms = _ttfts_ms(run.rt)
                upper.plot(
                    times_ms,
                    np.arange(1, len(times_ms) + 1) / len(times_ms),
                    style,
                    color="C0" if label == "live" else "C1",
                    linewidth=1,
                    label=label if number == 0 else None,
                )
        plain_log_axis(upper, "x")
        upper.set(
            xlabel="RT TTFT, ms",
            ylabel="share of requests" if column == 0 else "",
            title=f"{comparison.policy}, {comparison.load.name}",
        )
        upper.legend(frameon=False, fontsize=8)
        rows = comparison.rows()
        ratios = [row["ratio"] or np.nan for row in rows]
        lower.axhspan(0.85, 1.15, color="0.9")
        lower.axhline(1.0, color="0.6", linewidth=1)
        for place, row in enumerate(rows):
            if row["live"]:
                lower.plot(
                    [place] * len(row["live_rounds"]), [v / row["live"] for v in row["live_rounds"]], "_C0"
                )
        lower.plot(range(len(rows)), ratios, "oC1", label="replay")
        lower.plot(
            range(len(rows)),
            [row["ratio_own_steps"] or np.nan for row in rows],
            "xk",
            label="own passes' fit",
        )
        lower.set(ylim=(0.5, 1.5), ylabel="over live (bars: its rounds)" if column == 0 else "")
        lower.set_xticks(
            range(len(rows)), [row["figure"] for row in rows], rotation=60, ha="right", fontsize=7
        )
    panels[1][0].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _ttfts_ms(records: Sequence[RequestRecord]) -> list[float]:
    return sorted(1e3 * record.ttft_s for record in records if record.ttft_s is not None)
