"""One look for every picture: a colour per policy (Okabe and Ito, safe for the colour-blind), sizes, grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FIXED = {
    "rt-alone": "#7f7f7f",
    "be-alone": "#b0b0b0",
    "fcfs": "#D55E00",
    "lpm": "#CC79A7",
    "priority": "#E69F00",
    "priority-mixed": "#8C6D00",
    "round-robin": "#56B4E9",
    "bros": "#0072B2",
}
_SPARE = ("#009E73", "#882255", "#44AA99", "#AA4499", "#117733", "#332288", "#661100", "#6699CC")


def colours(policies: Sequence[str]) -> dict[str, str]:
    """Return a colour per policy: the known ones always the same, others by their order."""
    spare = [policy for policy in dict.fromkeys(policies) if policy not in _FIXED]
    extra = {policy: _SPARE[index % len(_SPARE)] for index, policy in enumerate(spare)}
    return {policy: _FIXED.get(policy) or extra[policy] for policy in policies}


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure in the project's style; sizes in inches."""
    with mpl.rc_context():
        return Figure(figsize=(width, height), layout="constrained", dpi=130)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG; the same figure gives the same bytes."""
    figure.savefig(path, metadata={"Software": None})
    return path
