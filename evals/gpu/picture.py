"""The picture of the load stage: RT attainment, first tokens and BE throughput over the RT rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.gpu.figures import Results, load_rows
from bros_sglang.evals.report.palette import colours, new_figure, save

if TYPE_CHECKING:
    from pathlib import Path


def draw_load(results: Results, path: Path) -> Path | None:
    """Write the picture, or nothing where no load was measured; return its path."""
    rows = [row for row in load_rows(results) if row.policy != "be-alone"]
    if not rows:
        return None
    figure = new_figure(12, 3.6)
    left, middle, right = figure.subplots(1, 3)
    policies = sorted({row.policy for row in rows})
    colour = colours(policies)
    for policy in policies:
        mine = [row for row in rows if row.policy == policy]
        style = {"color": colour[policy], "ms": 4}
        seen = [(row.rate, row.attainment) for row in mine if row.attainment is not None]
        left.plot([r for r, _ in seen], [100 * a for _, a in seen], "o-", label=policy, **style)
        late = [(row.rate, row.ttft_p99_ms) for row in mine if row.ttft_p99_ms]
        middle.plot([r for r, _ in late], [t for _, t in late], "o-", **style)
        if policy != "rt-alone":
            right.plot([row.rate for row in mine], [row.be_tokens_per_s for row in mine], "o-", **style)
    ttft_ms = results.about.get("settings", {}).get("ttft_ms")
    if ttft_ms:
        middle.axhline(ttft_ms, color="black", linestyle="--", linewidth=1)
    left.set_ylabel("RT within both targets, %")
    middle.set(ylabel="RT TTFT p99, ms", yscale="log")
    right.set_ylabel("BE tokens/s")
    right.set_ylim(bottom=0)
    for axes in (left, middle, right):
        axes.set_xlabel("RT requests/s")
        axes.grid(alpha=0.25)
    figure.legend(loc="outside right center", frameon=False, fontsize=9)
    if results.dry:
        figure.suptitle("Dry run on a CPU: figures mean nothing", x=0.01, ha="left", fontsize=10, color="0.4")
    return save(figure, path)
