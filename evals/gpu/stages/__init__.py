"""The stages of a run, in the order in which they are worth their time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.evals.gpu.stages import (
    attention,
    ceilings,
    hicache,
    host,
    load,
    memory,
    overhead,
    profile,
    replay,
    start,
    syncs,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.evals.gpu.cell import Cell
    from bros_sglang.evals.gpu.run import GpuRun

STAGES: dict[str, Callable[[GpuRun], list[Cell]]] = {
    "host": host.cells,
    "start": start.cells,
    "ceilings": ceilings.cells,
    "overhead": overhead.cells,
    "load": load.cells,
    "profile": profile.cells,
    "memory": memory.cells,
    "syncs": syncs.cells,
    "load-at-once": load.at_once_cells,
    "load-mixed": load.mixed_cells,
    "attention": attention.cells,
    "hicache": hicache.cells,
    "second-model": start.second_model_cells,
    "replay": replay.cells,
}
