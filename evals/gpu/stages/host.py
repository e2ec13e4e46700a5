"""Stage host: what is on this machine, what is missing, and which tree core works."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bros_sglang.evals.gpu import environment
from bros_sglang.evals.gpu.cell import Cell

if TYPE_CHECKING:
    from bros_sglang.evals.gpu.run import GpuRun


def cells(run: GpuRun) -> list[Cell]:
    """Return the one cell of this stage."""

    def look() -> dict[str, Any]:
        missing = environment.missing_modules()
        if missing:
            raise RuntimeError(f"Python packages are missing here: {', '.join(missing)}")
        found = run.measured(__name__, ["--device", run.scale.device], "host")
        return {"versions": environment.versions(), "nvidia_smi": environment.nvidia_smi(), **found}

    return [Cell("host", "host", 60.0, look)]


def rust_tree_core() -> dict[str, Any]:
    """Try SGLang's Rust tree core on one insert and one match: it is built against one release of torch."""
    import torch
    from sglang.srt.mem_cache.base_prefix_cache import InsertParams, MatchPrefixParams
    from sglang.srt.mem_cache.radix_cache import RadixKey

    from bros_sglang.evals.memory.pool_driver import PoolDriver

    try:
        driver = PoolDriver(1024, tree="stock", tree_core="rust", max_requests=2)
        key = RadixKey(array("q", [5, 6, 7, 8]))
        driver.tree.insert(InsertParams(key=key, value=torch.arange(1, 5, dtype=torch.int64)))
        matched = driver.tree.match_prefix(MatchPrefixParams(key=RadixKey(array("q", [5, 6, 7]))))
        tokens = int(matched.device_prefix_len)
    except Exception as error:  # noqa: BLE001 (whatever it is, the Python core serves)
        return {"works": False, "reason": f"{type(error).__name__}: {error}"[:500]}
    return {"works": tokens == 3, "reason": "" if tokens == 3 else f"matched {tokens} of 3 tokens"}


def cuda_device() -> dict[str, Any]:
    """Return what torch sees of the GPU. Raises RuntimeError where it sees none."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU: is the driver there, and is this torch built for CUDA?")
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "torch_cuda": torch.version.cuda,
    }


def main(device: Annotated[str, typer.Option()], json_file: Annotated[Path, typer.Option("--json")]) -> None:
    """Look, and write what was found."""
    from bros_sglang import seams

    found: dict[str, Any] = {"device": cuda_device() if device == "cuda" else {"name": "cpu"}}
    found["rust_tree_core"] = rust_tree_core()
    found["missing_seams"] = seams.missing_seams()
    json_file.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
