"""Draw docs/images/s1.png from the S1 result files: python picture.py (from the repository root)."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
COLOURS = {
    "fcfs-mixed": "#d55e00",
    "priority-mixed": "#e69f00",
    "round-robin": "#999999",
    "free-swap": "#cccccc",
    "bros": "#0072b2",
    "bros-host-cache": "#009e73",
}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, constrained_layout=True)
for axis, rate in zip(axes, ("1.65", "3.3", "5"), strict=True):
    results = {r["policy"]: r for r in json.loads((HERE / f"s1-rate{rate}-tpot50.json").read_text())}
    alone = 100 * results["rt-alone"]["rt"]["attainment"]
    axis.axhline(alone, color="black", lw=1, ls="--")
    axis.annotate("RT alone", (0.99, alone), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    for name, colour in COLOURS.items():
        r = results[name]
        x, y = r["be"]["tokens_per_s"], 100 * r["rt"]["attainment"]
        axis.plot(x, y, "o", ms=9, color=colour, label=name)
    axis.set(title=f"{rate} RT requests/s", xlabel="BE tokens/s", ylim=(-4, 108), xlim=(0, 26_000))
    axis.grid(alpha=0.2)
axes[0].legend(loc="center left", fontsize=8)
axes[0].set_ylabel("RT within TTFT 400 ms and TPOT 50 ms, %")
figure.savefig(Path("docs/images/s1.png"), dpi=110)
