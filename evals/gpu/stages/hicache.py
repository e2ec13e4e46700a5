"""Stage hicache: a pool too small for the load, hierarchical cache on: preemption with load-back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.gpu.cell import Cell
from bros_sglang.evals.gpu.loads import measured, mixed_plan
from bros_sglang.evals.live.errors import LiveError

if TYPE_CHECKING:
    from bros_sglang.evals.gpu.run import GpuRun

NEEDS = (("start", "stock"),)
# SGLang's copy kernels first; plain copies where they do not run, and on a CPU.
IO_BACKENDS: dict[str, tuple[str, ...]] = {
    "kernel": ("--hicache-io-backend", "kernel"),
    "direct": ("--hicache-io-backend", "direct", "--hicache-mem-layout", "layer_first"),
}


def cells(run: GpuRun) -> list[Cell]:
    """Return a cell without the host cache and one with it, for stock and for bros."""
    scale = run.scale
    made = []
    for policy in ("bros", "priority"):
        for host_cache in (False, True):
            name = f"{policy}-{'host-cache' if host_cache else 'device-only'}"
            measure = partial(_measure, run, policy, host_cache=host_cache)
            made.append(Cell("hicache", name, scale.start_s + scale.run_s(), measure, NEEDS))
    return made


def _measure(run: GpuRun, policy: str, *, host_cache: bool) -> dict[str, Any]:
    scale = run.scale
    failures: dict[str, str] = {}
    for io, io_flags in IO_BACKENDS.items() if host_cache else [("none", ())]:
        if io == "kernel" and scale.on_cpu:
            continue
        extra = ("--enable-hierarchical-cache", "--hicache-ratio", "4", *io_flags) if host_cache else ()
        arguments = run.arguments(policy, pool_tokens=scale.small_pool_tokens, extra=extra)
        name = f"hicache-{policy}-{'host' if host_cache else 'device'}"
        try:
            server = run.server(run.command(arguments), name)
            plan = mixed_plan(scale, scale.rates[0], be=scale.hicache_be)
            result = measured(run, policy, server.url, plan, name)
        except LiveError as error:
            run.close()
            failures[io] = str(error)
            continue
        return {"io_backend": io, "failed_with": failures, "arguments": arguments, **result}
    raise LiveError("\n".join(f"{io}: {why}" for io, why in failures.items()))
