"""Stage ceilings: what this device reaches at its best, to stand beside each figure."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bros_sglang.evals.gpu.cell import Cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.evals.gpu.run import GpuRun

REPEATS = 15
# On a GPU: matrices of 8,192, copies of 4 GB (many times its cache). On a CPU just enough to run.
_SIZES = {"cuda": (8192, 4 << 30, 1 << 30), "cpu": (256, 8 << 20, 4 << 20)}


def cells(run: GpuRun) -> list[Cell]:
    """Return the one cell of this stage."""

    def measure() -> dict[str, Any]:
        run.close()  # alone on the device
        return run.measured(__name__, ["--device", run.scale.device], "ceilings")

    return [Cell("ceilings", "ceilings", 45.0, measure)]


def measure_ceilings(device: str) -> dict[str, Any]:
    """Return medians: TFLOP/s of a bf16 matrix product on random data, GB/s of memory and of the host link.

    Memory counts bytes read and written; the link is measured each way, with pinned host memory.
    """
    import torch

    size, copy_bytes, link_bytes = _SIZES[device]
    gpu = device == "cuda"
    dtype = torch.bfloat16 if gpu else torch.float32
    gemm_s = _median_s(_product(size, device, dtype), device)
    source = torch.randint(0, 255, (copy_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = _median_s(lambda: target.copy_(source), device)
    host = torch.ones(link_bytes, dtype=torch.uint8, pin_memory=gpu)
    part = source[:link_bytes]
    to_host_s = _median_s(lambda: host.copy_(part, non_blocking=True), device)
    to_device_s = _median_s(lambda: part.copy_(host, non_blocking=True), device)
    small = host[:256]
    latency_s = _median_s(lambda: small.copy_(part[:256], non_blocking=True), device)
    return {
        "gemm_tflops": 2 * size**3 / gemm_s / 1e12,
        "memory_gb_per_s": 2 * copy_bytes / copy_s / 1e9,
        "to_host_gb_per_s": link_bytes / to_host_s / 1e9,
        "to_device_gb_per_s": link_bytes / to_device_s / 1e9,
        "small_copy_us": latency_s * 1e6,
        "gemm_size": size,
        "repeats": REPEATS,
    }


def _product(size: int, device: str, dtype: Any) -> Callable[[], Any]:
    import torch

    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: torch.mm(left, right)


def _median_s(action: Callable[[], Any], device: str) -> float:
    """Return the median seconds of `action` after three runs that warm up; device events on a GPU."""
    import torch

    for _ in range(3):
        action()
    times: list[float] = []
    for _ in range(REPEATS):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            action()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        else:
            began_s = time.perf_counter()
            action()
            times.append(time.perf_counter() - began_s)
    return statistics.median(times)


def main(device: Annotated[str, typer.Option()], json_file: Annotated[Path, typer.Option("--json")]) -> None:
    """Measure, and write the figures."""
    json_file.write_text(json.dumps(measure_ceilings(device)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
