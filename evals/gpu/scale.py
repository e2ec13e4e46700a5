"""What a run measures with: real shapes on a GPU, or a tiny model on the CPU to try the same script."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of everything; the stages are the same at any of them."""

    name: str
    device: str
    model: str
    second_model: str
    dtype: str
    pool_tokens: int
    small_pool_tokens: int  # for preemption: short of what the load wants
    running: int  # requests that may run at a time
    chunk_tokens: int
    context_tokens: int
    rt: str  # workload; `{rate}` is filled in
    be: str
    hicache_be: str
    full_house_be: str  # keeps `running` requests decoding
    rates: tuple[float, ...]  # RT requests/s, lowest first
    seconds: float
    warmup_s: float
    start_s: float  # what a server takes to start, for planning
    profile_s: float
    ttft_ms: float
    tpot_ms: float
    attention: tuple[str, ...]
    page_sizes: tuple[int, ...]

    @property
    def on_cpu(self) -> bool:
        """Whether nothing here runs on a GPU."""
        return self.device == "cpu"

    def run_s(self) -> float:
        """Return what one measured load takes, with what comes before and after, for planning."""
        return self.seconds + self.warmup_s + 15.0


# S1: ShareGPT lengths as Poisson RT beside the BE of the paper, at 30, 60 and 90 % of what RT alone reaches
# in a pool of 120,000 tokens (docs/results.md).
REAL = Scale(
    name="gpu",
    device="cuda",
    model="llama3-8b",
    second_model="qwen3-8b",
    dtype="bfloat16",
    pool_tokens=120_000,
    small_pool_tokens=40_000,
    running=256,
    chunk_tokens=2048,
    context_tokens=8192,
    rt="sharegpt:rate={rate:g},max_context=8000",
    be="paper:outstanding=128",
    hicache_be="paper:outstanding=64",
    full_house_be="uniform:prompt=96-160,output=160-280,outstanding=256",
    rates=(1.65, 3.3, 5.0),
    seconds=45.0,
    warmup_s=5.0,
    start_s=75.0,
    profile_s=60.0,
    ttft_ms=400.0,
    tpot_ms=50.0,
    attention=("triton", "flashinfer"),
    page_sizes=(1, 16),
)
DRY = Scale(
    name="dry-run",
    device="cpu",
    model="tiny-llama",
    second_model="tiny-qwen3",
    dtype="float32",
    pool_tokens=8192,
    small_pool_tokens=3072,
    running=24,
    chunk_tokens=256,
    context_tokens=2048,
    rt="synthetic:rate={rate:g},scale=8,max_context=1500",
    be="uniform:prompt=64-128,output=16-48,outstanding=12",
    hicache_be="uniform:prompt=200-300,output=64-128,outstanding=12",
    full_house_be="uniform:prompt=16-32,output=60-100,outstanding=24",
    rates=(2.0, 4.0, 6.0),
    seconds=4.0,
    warmup_s=1.0,
    start_s=45.0,
    profile_s=16.0,
    ttft_ms=400.0,
    tpot_ms=50.0,
    attention=("torch_native",),
    page_sizes=(1, 16),
)
