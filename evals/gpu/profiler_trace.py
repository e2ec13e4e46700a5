"""Count what made the host wait for the GPU in a trace of torch's profiler."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# Calls that wait for the device. A copy from or to pageable memory waits too, whatever call made it.
WAITING_CALLS = (
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "cudaMemcpy2D",
    "cuStreamSynchronize", "cuCtxSynchronize", "cuEventSynchronize",
)  # fmt: skip
COUNTED = (*WAITING_CALLS, "cudaLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync")  # for comparison
_RUNTIME = ("cuda_runtime", "cuda_driver", "Runtime", "Driver")


class TraceError(ValueError):
    """A trace that cannot be read; the message names the file."""


def count_waits(path: Path, passes: int) -> dict[str, Any]:
    """Return, per pass, each waiting call and each pageable copy of a trace (`.json` or `.json.gz`).

    Raises TraceError for a file that is no trace.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        events = json.loads(raw)["traceEvents"]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise TraceError(f"{path}: no trace of torch's profiler ({error!r})") from error
    counts: Counter[str] = Counter()
    for event in events:
        name, category = str(event.get("name", "")), event.get("cat", "")
        counted = name in COUNTED if category in _RUNTIME else "Pageable" in name
        if counted and (category in _RUNTIME or category == "gpu_memcpy"):
            counts[name] += 1
    per_pass = {name: count / passes for name, count in sorted(counts.items())}
    waiting = sum(value for name, value in per_pass.items() if name in WAITING_CALLS or "Pageable" in name)
    return {"passes": passes, "events": len(events), "per_pass": per_pass, "waits_per_pass": waiting}
