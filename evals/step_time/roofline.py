"""Step time from the shape of the model and the peaks of the GPU (roofline: Williams et al., CACM 2009)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.step_time.frontend import Frontend

if TYPE_CHECKING:
    from bros_sglang.evals.step_time.gpus import Gpu
    from bros_sglang.evals.step_time.shapes import ModelShape
    from bros_sglang.evals.step_time.step import Step


@dataclass(frozen=True, slots=True)
class Efficiency:
    """The share of each peak that serving reaches, and what a pass costs beside arithmetic and memory.

    The figures are those at which the model gives the step times stated for Llama-3-8B on an H200 (5.7 ms
    and 29 µs per prefill token, 30 ns per context token, 8 µs per decode row, see `presets.AFFINE`), which
    lie inside what is published: 55-60 % of memory bandwidth end to end, overheads included, on A100
    (Databricks, "LLM Inference Performance Engineering", 2023), 50-65 % of peak FLOPs in prefill.
    """

    flops: float = 0.56  # GEMMs of a prefill: 16.0 GFLOP per token and 29 µs
    attention_flops: float = 0.45  # FlashAttention-2 forward, causal, head_dim 128: 0.4-0.6 on A100/H100
    weight_bandwidth: float = 0.80  # streaming GEMV-like reads of all weights
    kv_bandwidth: float = 0.91  # paged attention: 131,072 bytes per token and 30 ns
    host_link: float = 0.80  # pinned copies of layers of a page, nearer to large-copy bandwidth than pages
    pass_s: float = 1.5e-3  # launch, sampling, input preparation: what 5.7 ms leaves beyond reading weights
    decode_row_s: float = 8e-6  # sampling, metadata and per-row kernels
    collective_latency_s: float = 12e-6  # one small all-reduce over NVLink with a custom kernel, 8 GPUs


class RooflineStepTime:
    """GEMMs at the slower of arithmetic and weight reads, attention beside them, a constant on top."""

    blocking = False
    frontend = Frontend()

    def __init__(
        self, model: ModelShape, gpu: Gpu, tp: int = 1, efficiency: Efficiency | None = None
    ) -> None:
        if tp < 1:
            raise ValueError(f"tp must be at least 1, not {tp}")
        self.model, self.gpu, self.tp = model, gpu, tp
        self.efficiency = e = efficiency or Efficiency()
        self.name = f"roofline {model.name} on {tp} x {gpu.name}"
        flops = gpu.flops * tp * e.flops
        self._token_s = 2 * model.layer_parameters / flops
        self._head_row_s = 2 * model.head_parameters / flops
        self._pair_s = 4 * model.layers * model.heads * model.head_dim / (gpu.flops * tp * e.attention_flops)
        read_bytes = (model.layer_parameters + model.head_parameters) * model.dtype_bytes
        self._weights_s = read_bytes / (gpu.memory_bandwidth * tp * e.weight_bandwidth)
        self._kv_token_s = model.kv_bytes_per_token / (gpu.memory_bandwidth * tp * e.kv_bandwidth)
        self._load_back_token_s = model.kv_bytes_per_token / (gpu.host_link_bandwidth * tp * e.host_link)
        self._pass_s = e.pass_s
        self._collective_token_s = 0.0
        if tp > 1:
            all_reduces = 2 * model.layers  # after attention and after the MLP (Megatron-LM)
            self._pass_s += all_reduces * e.collective_latency_s
            moved = 2 * (tp - 1) / tp * model.hidden * model.dtype_bytes
            self._collective_token_s = all_reduces * moved / gpu.collective_bandwidth

    def step_s(self, step: Step) -> float:
        """Return the seconds that the GPUs need for `step`."""
        tokens = step.prefill_tokens + step.decode_rows
        gemm_s = tokens * self._token_s + (step.prefill_rows + step.decode_rows) * self._head_row_s
        compute_s = (
            max(gemm_s, self._weights_s)
            + step.attention_pairs * self._pair_s
            + (step.decode_context_tokens + step.prefill_context_tokens) * self._kv_token_s
            + step.decode_rows * self.efficiency.decode_row_s
            + tokens * self._collective_token_s
            + self._pass_s
        )
        # Layers load back while earlier layers compute: the slower of both sets the pace.
        return max(compute_s, step.load_back_tokens * self._load_back_token_s)

    def pool_tokens(self, memory_fraction: float = 0.88) -> int:
        """Return how many KV tokens fit beside the weights.

        0.88 is SGLang's usual `--mem-fraction-static` on large GPUs.
        """
        free_bytes = self.gpu.memory_bytes * self.tp * memory_fraction - self.model.weight_bytes
        if free_bytes <= 0:
            raise ValueError(
                f"{self.model.name} ({self.model.weight_bytes / 1e9:.0f} GB of weights) does not fit on "
                f"{self.tp} x {self.gpu.name}: raise --tp or choose another GPU"
            )
        return int(free_bytes // self.model.kv_bytes_per_token)

    def describe(self) -> dict[str, Any]:
        """Return the constants, JSON-ready."""
        return {
            "kind": "roofline",
            "name": self.name,
            "model": asdict(self.model),
            "gpu": asdict(self.gpu),
            "tp": self.tp,
            "efficiency": asdict(self.efficiency),
            "seconds": {
                "pass": self._pass_s,
                "weights": self._weights_s,
                "prefill_token": self._token_s,
                "kv_token": self._kv_token_s,
                "load_back_token": self._load_back_token_s,
            },
        }
