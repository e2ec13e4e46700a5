"""A picture of the pool: who sits where, stock above bros."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

_COLOURS = {"free": "#f2f2f2", "best-effort": "#e08214", "real-time": "#2166ac", "cache": "#c7c7c7"}


def draw_occupancy(occupancies: Mapping[str, torch.Tensor], path: Path, *, columns: int = 400) -> None:
    """Draw each pool as rows of slots, lowest first.

    occupancies: label -> per slot 0 free, 1 best-effort, 2 real-time, 3 cache (`ChurnResult.occupancy`).
    The format is the path's ending (.png, .svg).
    """
    figure, axes = plt.subplots(len(occupancies), 1, figsize=(9, 3 * len(occupancies)), squeeze=False)
    for axis, (label, marks) in zip(axes[:, 0], occupancies.items(), strict=True):
        rows = -(-marks.numel() // columns)
        grid = np.zeros(rows * columns, dtype=np.int8)
        grid[: marks.numel()] = marks.numpy()
        axis.imshow(
            grid.reshape(rows, columns),
            cmap=ListedColormap(list(_COLOURS.values())),
            vmin=0,
            vmax=3,
            aspect="auto",
            interpolation="nearest",
        )
        axis.set_title(f"{label}: slots of the KV pool, lowest at the top", fontsize=9, loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
    handles = [Patch(facecolor=colour, edgecolor="#888888", label=name) for name, colour in _COLOURS.items()]
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=150)
    plt.close(figure)
