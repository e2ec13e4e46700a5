"""Records of a finished run, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

from bros_sglang.evals.gpu.cell import CellRecord
from bros_sglang.evals.gpu.figures import REPLAY_FIGURES, Results
from bros_sglang.evals.step_time.linear import FILE_KIND

COEFFICIENTS = {
    "prefill_pass_s": 0.006,
    "decode_pass_s": 0.005,
    "prefill_token_s": 3e-5,
    "decode_row_s": 8e-6,
}


def about(device: str = "cuda") -> dict[str, Any]:
    settings = {
        "model": "llama3-8b",
        "pool_tokens": 120_000,
        "running": 256,
        "chunk_tokens": 2048,
        "rt": "sharegpt:rate={rate:g}",
        "be": "paper:outstanding=128",
        "seconds": 45.0,
        "ttft_ms": 400.0,
        "tpot_ms": 50.0,
    }
    return {"device": device, "command": "python -m bros_sglang.evals.gpu --out run", "settings": settings}


def load(policy: str, rate: float, *, rt: float, be: float, attainment: float | None) -> CellRecord:
    latency = {"p50": 60.0, "p99": 300.0} if attainment is not None else {"p50": None, "p99": None}
    result = {
        "rate": rate,
        "policy": policy,
        "workloads": [f"sharegpt:rate={rate:g} [sharegpt_8k_lengths.csv]", "paper:outstanding=128"],
        "rt": {
            "requests": 100 if attainment is not None else 0,
            "ttft_ms": latency,
            "tpot_ms": latency,
            "attainment": attainment,
            "tokens_per_s": rt,
        },
        "be": {"requests": 50 if be else 0, "tokens_per_s": be},
        "preemptions": 3,
    }
    return CellRecord("load", f"{policy}-{rate:g}", "done", result=result)


def records() -> list[CellRecord]:
    def done(stage: str, cell: str, **result: Any) -> CellRecord:
        return CellRecord(stage, cell, "done", result=result)

    ceilings = {
        "gemm_tflops": 790.0,
        "memory_gb_per_s": 4300.0,
        "to_host_gb_per_s": 50.0,
        "to_device_gb_per_s": 52.0,
        "small_copy_us": 8.0,
    }
    fit = {
        "model": {
            "coefficients": COEFFICIENTS,
            "kind": FILE_KIND,
            "blocking": False,
            "provenance": {"server_args": ["--policy", "bros"], "fit": {"steps": 900}},
        },
        "steps": 900,
        "error_p50": 0.02,
        "error_p95": 0.08,
    }
    step = {"rows": 256, "decide_us": 100.0, "launch_us": 300.0, "process_us": 400.0, "scheduler_share": 0.08}
    smi = {"gpus": [{"name": "NVIDIA H200", "driver_version": "580.159.03"}]}
    waits = {kind: {"passes": 9, "waits_per_pass": 0.0} for kind in ("decode", "prefill_or_mixed")}
    figure = {"live": 100.0, "replay": 104.0, "ratio": 1.04, "within": True}
    figures = [{"figure": name, **figure} for name in REPLAY_FIGURES]
    copy = {"tokens_per_run": 1.2, "megabytes": 100.0, "scattered_gb_per_s": 30.0, "in_runs_gb_per_s": 5.0}
    timings = [
        {"operation": "alloc", "page_size": 1, "size": 64, "allocator": a, "median_us": us}
        for a, us in (("stock", 10.0), ("bros", 11.0))
    ]
    status = {
        "schedulers": [{"preemption": {"recomputed_tokens_total": 70, "loaded_back_tokens_total": 900}}]
    }
    mixed = load("bros", 1.5, rt=400.0, be=9700.0, attainment=0.998).result
    return [
        done(
            "host",
            "host",
            nvidia_smi=smi,
            device={"name": "NVIDIA H200"},
            versions={"torch": "2.11.0"},
            rust_tree_core={"works": False, "reason": "torch"},
        ),
        done("ceilings", "ceilings", **ceilings),
        done("start", "stock", graphs="decode", up_s=60.0, first_answers_s=9.0, next_answers_s=1.0),
        done("start", "bros", up_s=40.0, first_answers_s=2.0, next_answers_s=1.0, same_tokens=4, compared=4),
        load("rt-alone", 1.5, rt=500.0, be=0.0, attainment=1.0),
        load("fcfs", 1.5, rt=500.0, be=9500.0, attainment=0.1),
        load("priority", 1.5, rt=500.0, be=10_000.0, attainment=0.9),
        load("bros", 1.5, rt=500.0, be=9700.0, attainment=0.998),
        done("overhead", "fcfs", step_ms=10.0, **step),
        done("overhead", "bros", step_ms=10.1, **step),
        done("syncs", "bros", profiler={"waits_per_pass": 1.0}, deciding=waits),
        done("memory", "copies", stock=copy, bros=copy),
        done(
            "memory",
            "operations",
            timings=timings,
            waits={"stock": {"page 1": {"alloc": {"calls": 3, "waits_per_call": 0.0}}}, "bros": {}},
        ),
        done("hicache", "bros-host-cache", io_backend="kernel", status=status, **mixed),
        done("attention", "triton-page16-bros", **mixed),
        done("profile", "bros", **fit),
        done("replay", "bros-1.5", figures=figures, within=len(figures)),
        CellRecord("attention", "flashinfer-page1-bros", "skipped", reason="flashinfer is not installed"),
    ]


def results(device: str = "cuda") -> Results:
    return Results(about(device), records())
