"""What a GPU can do at its peak, and which share of it serving reaches."""

from __future__ import annotations

from dataclasses import dataclass

from bros_sglang.evals.step_time.shapes import UnknownPresetError


@dataclass(frozen=True, slots=True)
class Gpu:
    """Peak figures of one GPU; bytes and FLOPs are per second."""

    name: str
    memory_bytes: float
    memory_bandwidth: float  # bytes/s
    flops: float  # dense BF16/FP16 tensor-core FLOP/s
    host_link_bandwidth: float  # bytes/s, one direction
    collective_bandwidth: float  # bytes/s of an all-reduce ("bus bandwidth" of nccl-tests)
    source: str


GPUS: dict[str, Gpu] = {
    # 141 GB, 4.8 TB/s, 1,979 TFLOPS BF16 with sparsity (half of it dense), PCIe Gen5 128 GB/s both ways,
    # NVLink 900 GB/s both ways; nccl-tests reach about 0.8 of one direction.
    "h200": Gpu("h200", 141e9, 4.8e12, 989.5e12, 64e9, 360e9, "NVIDIA H200 Tensor Core GPU datasheet (SXM)"),
    # 80 GB, 3.35 TB/s, the compute and links of the H200.
    "h100": Gpu("h100", 80e9, 3.35e12, 989.5e12, 64e9, 360e9, "NVIDIA H100 Tensor Core GPU datasheet (SXM)"),
    # 80 GB, 2,039 GB/s, 312 TFLOPS dense, PCIe Gen4 64 GB/s both ways, NVLink 600 GB/s both ways.
    "a100-80g": Gpu("a100-80g", 80e9, 2.039e12, 312e12, 32e9, 235e9, "NVIDIA A100 80GB datasheet (SXM)"),
    # 40 GB, 1,555 GB/s, else as above.
    "a100-40g": Gpu("a100-40g", 40e9, 1.555e12, 312e12, 32e9, 235e9, "NVIDIA A100 40GB datasheet (SXM)"),
}


def gpu_preset(name: str) -> Gpu:
    """Return a preset by name.

    Raises:
        UnknownPresetError: no such preset.
    """
    try:
        return GPUS[name]
    except KeyError:
        raise UnknownPresetError(f"unknown GPU {name!r}: use one of {', '.join(GPUS)}") from None
