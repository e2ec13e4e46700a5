"""The picture of a validation: TTFT of RT, live and replayed, per load and policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bros_sglang.evals.metrics.record import RequestRecord
    from bros_sglang.evals.replay.validate import Comparison

mpl.use("Agg")


def draw_validation(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write a PNG: one panel per load and policy with both CDFs, and the ratios of all figures below."""
    from matplotlib import pyplot as plt  # after the backend is chosen

    figure, panels = plt.subplots(
        2, len(comparisons), figsize=(3.2 * len(comparisons), 6), dpi=150, squeeze=False
    )
    for column, comparison in enumerate(comparisons):
        upper, lower = panels[0][column], panels[1][column]
        for label, records, style in (
            ("live", comparison.live_records, "-"),
            ("replay", comparison.replay_records, "--"),
        ):
            times_ms = _ttfts_ms(records)
            upper.plot(times_ms, np.arange(1, len(times_ms) + 1) / len(times_ms), style, label=label)
        upper.set(
            xscale="log",
            xlabel="RT TTFT, ms",
            ylabel="share of requests" if column == 0 else "",
            title=f"{comparison.policy}, {comparison.load.name}",
        )
        upper.legend(frameon=False, fontsize=8)
        rows = comparison.rows()
        ratios = [row["ratio"] or np.nan for row in rows]
        lower.axhspan(0.85, 1.15, color="0.9")
        lower.axhline(1.0, color="0.6", linewidth=1)
        lower.plot(range(len(rows)), ratios, "o", label="replay")
        lower.plot(
            range(len(rows)), [row["ratio_own_steps"] or np.nan for row in rows], "x", label="own passes' fit"
        )
        lower.set(ylim=(0.5, 1.5), ylabel="replay / live" if column == 0 else "")
        lower.set_xticks(
            range(len(rows)), [row["figure"] for row in rows], rotation=60, ha="right", fontsize=7
        )
    panels[1][0].legend(frameon=False, fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _ttfts_ms(records: Sequence[RequestRecord]) -> list[float]:
    return sorted(1e3 * record.ttft_s for record in records if record.ttft_s is not None)
