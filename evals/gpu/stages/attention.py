"""Stage attention: bros and stock on each attention back end, at page sizes of 1 and more, overlap on."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.cell import Cell, SkipCellError
from bros_sglang.evals.gpu.loads import measured, mixed_plan
from bros_sglang.evals.gpu.stages.start import answers

if TYPE_CHECKING:
    from bros_sglang.evals.gpu.run import GpuRun

NEEDS = (("start", "stock"),)


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell per back end, page size and policy."""
    scale = run.scale
    made = []
    for attention in scale.attention:
        for page_size in scale.page_sizes:
            for policy in ("fcfs", "bros"):
                name = f"{attention}-page{page_size}-{policy}"
                measure = partial(_measure, run, attention, page_size, policy)
                made.append(Cell("attention", name, scale.start_s + scale.run_s(), measure, NEEDS))
    return made


def _measure(run: GpuRun, attention: str, page_size: int, policy: str) -> dict[str, Any]:
    if attention == "flashinfer" and find_spec("flashinfer") is None:
        raise SkipCellError("flashinfer is not installed on this host")
    arguments = run.arguments(policy, attention=attention, page_size=page_size)
    name = f"attention-{attention}-page{page_size}-{policy}"
    server = run.server(run.command(arguments), name)
    tokens = answers(server.url, run.scale.chunk_tokens)
    middle = run.scale.rates[len(run.scale.rates) // 2]
    result = measured(run, policy, server.url, mixed_plan(run.scale, middle), name)
    return {"rate": middle, "arguments": arguments, "tokens": tokens, **result}
