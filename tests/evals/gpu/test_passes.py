"""What recorded passes and profiler traces say."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bros_sglang.evals.gpu.passes import PassesError, decode_figures, read_passes, waits_per_pass
from bros_sglang.evals.gpu.profiler_trace import TraceError, count_waits


def one(index: int, *, rows: int = 256, decode: bool = True, step_s: float = 0.010) -> dict[str, Any]:
    return {
        "rows": rows,
        "decode": decode,
        "decide_s": 1e-4,
        "launch_s": 2e-4,
        "process_s": 3e-4,
        "wait_s": 9e-3,
        "waits": 0,
        "launched_s": index * step_s,
        "done_s": (index + 1) * step_s,
    }


def test_the_decode_step_and_the_schedulers_share() -> None:
    figures = decode_figures([one(index) for index in range(50)], 256)
    assert figures["steps"] == 49
    assert figures["step_ms"] == pytest.approx(10.0)
    assert figures["decide_us"] == pytest.approx(100.0)
    assert figures["scheduler_share"] == pytest.approx(0.06)


def test_steps_that_are_not_full_or_follow_a_prefill_do_not_count() -> None:
    passes = [one(index) for index in range(100)]
    passes[30] |= {"decode": False}
    passes[60] |= {"rows": 100}
    assert decode_figures(passes, 256)["steps"] == 99 - 4


def test_too_few_full_steps() -> None:
    with pytest.raises(PassesError, match="measure longer"):
        decode_figures([one(index, rows=40) for index in range(500)], 256)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "passes.jsonl"
    path.write_text("".join(json.dumps(one(i)) + "\n" for i in range(3)) + '{"rows": 2', encoding="utf-8")
    assert len(read_passes(path)) == 3
    with pytest.raises(PassesError, match="no passes were recorded"):
        read_passes(tmp_path / "none.jsonl")


def test_waits_by_kind_of_pass() -> None:
    passes = [one(0), one(1) | {"waits": 2}, one(2, decode=False) | {"waits": 1}]
    waits = waits_per_pass(passes)
    assert waits["decode"] == {"passes": 2, "waits_per_pass": 1.0}
    assert waits["prefill_or_mixed"] == {"passes": 1, "waits_per_pass": 1.0}
    assert waits_per_pass([])["decode"]["waits_per_pass"] is None


@pytest.mark.parametrize("compressed", [True, False])
def test_a_trace_is_counted_per_pass(tmp_path: Path, compressed: bool) -> None:
    events = [
        *[{"cat": "cuda_runtime", "name": "cudaEventSynchronize"}] * 10,
        *[{"cat": "cuda_runtime", "name": "cudaLaunchKernel"}] * 500,
        *[{"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pageable -> Device)"}] * 5,
        *[{"cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)"}] * 7,
        *[{"cat": "cpu_op", "name": "cudaEventSynchronize"}] * 3,
        {"name": "process_name"},
    ]
    raw = json.dumps({"traceEvents": events}).encode()
    path = tmp_path / ("a.trace.json.gz" if compressed else "a.trace.json")
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    counted = count_waits(path, passes=10)
    assert counted["per_pass"] == {
        "cudaEventSynchronize": 1.0,
        "cudaLaunchKernel": 50.0,
        "Memcpy HtoD (Pageable -> Device)": 0.5,
    }
    assert counted["waits_per_pass"] == pytest.approx(1.5)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\x1f\x8b"])
def test_a_file_that_is_no_trace(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.trace.json.gz"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"a\.trace\.json\.gz: no trace"):
        count_waits(path, 10)
