"""The picture of a fit: predicted against measured pass times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.evals.step_time.fit import FitReport

mpl.use("Agg")


def draw_fit(report: FitReport, name: str, path: Path) -> None:
    """Write a PNG with one dot per pass and the line on which prediction and measurement agree."""
    from matplotlib import pyplot as plt  # after the backend is chosen

    figure, axes = plt.subplots(figsize=(5, 5), dpi=150)
    measured = [1e3 * value for value in report.measured_s]
    predicted = [1e3 * value for value in report.predicted_s]
    low, high = min(measured + predicted) * 0.9, max(measured + predicted) * 1.1
    axes.plot([low, high], [low, high], color="0.6", linewidth=1)
    axes.scatter(measured, predicted, s=4, alpha=0.3, linewidths=0)
    axes.set(
        xscale="log", yscale="log", xlim=(low, high), ylim=(low, high),
        xlabel="measured pass, ms", ylabel="predicted, ms",
        title=f"{name}\nmedian error {report.error_p50:.1%}, p95 {report.error_p95:.1%}",
    )  # fmt: skip
    axes.title.set_fontsize(9)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
