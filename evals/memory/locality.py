"""How contiguous a request's KV slots are, and what copying them to host memory costs."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import torch


class Run(NamedTuple):
    """Slots first..first+length-1."""

    first: int
    length: int


class Locality(NamedTuple):
    """Contiguity of some requests' slots."""

    requests: int
    runs_per_request: float  # median
    tokens_per_run: float  # over all requests


def runs_of(slots: torch.Tensor) -> list[Run]:
    """Return maximal groups of neighbouring slots, ascending; the order of tokens in them is left open."""
    if not slots.numel():
        return []
    ordered = torch.sort(slots.cpu())[0]
    breaks = torch.nonzero(ordered.diff() != 1).view(-1) + 1
    edges = torch.cat((torch.tensor([0]), breaks, torch.tensor([ordered.numel()])))
    firsts = ordered[edges[:-1]].tolist()
    return [Run(*pair) for pair in zip(firsts, edges.diff().tolist(), strict=True)]


def locality_of(requests: Sequence[torch.Tensor]) -> Locality:
    """Measure several requests' slots; zeros for none."""
    counts = [len(runs_of(slots)) for slots in requests if slots.numel()]
    if not counts:
        return Locality(0, 0.0, 0.0)
    tokens = sum(slots.numel() for slots in requests)
    return Locality(len(counts), statistics.median(counts), tokens / sum(counts))


class CopyTimes(NamedTuple):
    """Median time to bring one request's KV to host memory, milliseconds."""

    scattered_ms: float  # gather its rows on the device, then one copy
    in_runs_ms: float  # one copy per run, no gather
    megabytes: float


def copy_times(
    kv: torch.Tensor, requests: Mapping[str, Sequence[torch.Tensor]], repeats: int = 5
) -> dict[str, CopyTimes]:
    """Time both ways for each request, label by label in turn, so that a noisy moment hits all alike.

    kv: (layers, slots, width), on the device to measure; its memory must have been touched. requests: label
    -> slot tensors (int64, none empty). Device copies go to pinned memory and are waited for.
    """
    on_gpu = kv.device.type == "cuda"
    most = max(slots.numel() for group in requests.values() for slots in group)
    layers, _, width = kv.shape
    host = torch.ones((layers, most, width), dtype=kv.dtype, pin_memory=on_gpu)
    seconds: dict[str, tuple[list[float], list[float]]] = {label: ([], []) for label in requests}
    for position in range(max(len(group) for group in requests.values())):
        prepared = {
            label: (group[position].to(kv.device), runs_of(group[position]))
            for label, group in requests.items()
            if position < len(group)
        }
        for _ in range(repeats):
            for label, (index, runs) in prepared.items():
                seconds[label][0].append(_timed(_copy_scattered, kv, index, host))
                seconds[label][1].append(_timed(_copy_runs, kv, runs, host))
    row_bytes = layers * width * kv.element_size()
    return {
        label: CopyTimes(
            statistics.median(scattered) * 1e3,
            statistics.median(in_runs) * 1e3,
            statistics.fmean(slots.numel() for slots in requests[label]) * row_bytes / 1e6,
        )
        for label, (scattered, in_runs) in seconds.items()
    }


def _copy_scattered(kv: torch.Tensor, index: torch.Tensor, host: torch.Tensor) -> None:
    for layer in range(kv.shape[0]):
        host[layer, : index.numel()].copy_(kv[layer, index], non_blocking=True)


def _copy_runs(kv: torch.Tensor, runs: Sequence[Run], host: torch.Tensor) -> None:
    at = 0
    for run in runs:
        host[:, at : at + run.length].copy_(kv[:, run.first : run.first + run.length], non_blocking=True)
        at += run.length


def _timed(copy: Callable[..., None], kv: torch.Tensor, what: Any, host: torch.Tensor) -> float:
    if kv.device.type == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    copy(kv, what, host)
    if kv.device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - start
