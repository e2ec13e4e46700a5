"""`bros eval replay`: what it writes, and what it refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from bros_sglang.cli.eval_replay import app
from bros_sglang.evals.replay.compare import CompareOptions, OptionError, jobs_for
from bros_sglang.evals.replay.policies import UnknownPolicyError
from bros_sglang.evals.replay.sweep import mark_best

if TYPE_CHECKING:
    from pathlib import Path

SMALL = [
    "--rt", "synthetic:rate=3,scale=8", "--be", "uniform:prompt=64-128,output=8-16,outstanding=8",
    "--step-time", "affine-llama3-8b-h200", "--pool-tokens", "4096", "--seconds", "5",
]  # fmt: skip
REAL_TIME_KEYS = ("wall_s", "real_time")  # all that may differ from run to run


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def without_real_time(path: Path) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = json.loads(path.read_text())
    for result in results:
        for key in REAL_TIME_KEYS:
            del result[key]
    return results


@pytest.mark.server
def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    policies = "rt-alone,priority-mixed,round-robin,vllm-priority,tgi"
    for name in ("a", "b"):
        result = invoke(*SMALL, "--policies", policies, "--out", str(tmp_path / name))
        assert result.exit_code == 0, result.output
    first = without_real_time(tmp_path / "a" / "results.json")
    assert json.dumps(first) == json.dumps(without_real_time(tmp_path / "b" / "results.json"))
    assert [result["policy"] for result in first] == policies.split(",")
    for result in first:
        assert result["tokens"]["conserved"] is True
        assert result["tokens"]["arrived"] == sum(
            result["tokens"][key] for key in ("served", "in_flight", "failed")
        )
        assert result["rt"]["requests"] > 0
        assert result["be"]["tokens_per_s"] > 0 or result["policy"] == "rt-alone"
        assert result["configuration"]["about"]
    files = [(tmp_path / name / "requests.parquet").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]
    rows = pq.read_table(tmp_path / "a" / "requests.parquet")
    assert set(rows["policy"].to_pylist()) == set(policies.split(","))
    measured = sum(result["rt"]["requests"] + result["be"]["requests"] for result in first)
    assert rows.num_rows >= measured  # BE issued while RT drained are rows too


@pytest.mark.server
def test_a_policy_that_fails_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    result = invoke(
        *SMALL, "--policies", "fcfs,lpm", "--flag", "lpm:attention-backend=nonsense",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert result.exit_code == 1
    assert "lpm" in result.output
    assert [r["policy"] for r in without_real_time(tmp_path / "out" / "results.json")] == ["fcfs"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--policies", "fcfs,fastest"], "unknown policy 'fastest'"),
        (["--policies", ""], "names none"),
        (["--policies", "fcfs,fcfs"], "fcfs twice"),
        (["--model", "gpt-9", "--step-time", "roofline"], "unknown model 'gpt-9'"),
        (["--gpu", "tpu", "--step-time", "roofline"], "unknown GPU 'tpu'"),
        (["--step-time", "guess"], "unknown step-time model"),
        (["--pool-tokens", "100"], "do not fit the pool of 100 tokens"),
        (["--context-length", "50"], "too short"),
        (["--rt", "nowhere.csv"], "nowhere.csv"),
        (["--rt", "synthetic:rate=fast"], "not a number"),
        (["--seconds", "0"], "--seconds must be above 0"),
        (["--flag", "bros:x=1", "--policies", "fcfs"], "not among --policies"),
        (["--flag", "nonsense"], "FLAG=VALUE"),
    ],
)
def test_bad_input_says_what_to_change_and_writes_nothing(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    options = ["--policies", "fcfs", *SMALL, *arguments, "--out", str(tmp_path / "out")]
    result = invoke(*options)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50,many,2\n"
    )
    result = invoke(*SMALL, "--policies", "fcfs", "--rt", str(trace), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "trace.csv, line 3" in " ".join(result.output.split())


def test_another_run_is_never_overwritten_silently(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = (*SMALL, "--policies", "vllm-fcfs", "--out", str(out))
    assert invoke(*arguments).exit_code == 0
    before = (out / "results.json").read_bytes()
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "holds another run" in " ".join(refused.output.split())
    assert (out / "results.json").read_bytes() == before
    assert invoke(*arguments, "--overwrite").exit_code == 0


def options(**changes: Any) -> CompareOptions:
    base = {"rt": "synthetic:rate=3", "be": "paper", "policies": ("fcfs",), "seconds": 5.0}
    return CompareOptions(**{**base, **changes})


def test_a_sweep_covers_chunks_and_mixing_of_stock_policies_alone() -> None:
    jobs = jobs_for(options(policies=("rt-alone", "fcfs", "vllm-fcfs", "bros"), sweep=True))
    labels = [job.label for job in jobs]
    assert labels[0] == "rt-alone"
    assert labels[-2:] == ["vllm-fcfs", "bros"]
    swept = [job for job in jobs if job.label.startswith("fcfs/")]
    flags = [
        (job.policy.flags["chunked-prefill-size"], job.policy.flags["enable-mixed-chunk"]) for job in swept
    ]
    assert flags == [(chunk, mixed) for chunk in (512, 1024, 2048, 4096, 8192) for mixed in (False, True)]


def test_flags_reach_the_policy_that_they_name() -> None:
    flags = ("bros:chunked-prefill-size=512", "page-size=16", "--bros:radix_eviction_policy=lru")
    with pytest.raises(OptionError, match="not among"):
        jobs_for(options(policies=("fcfs",), flags=flags))
    fcfs, bros = jobs_for(options(policies=("fcfs", "bros"), flags=flags[:2]))
    assert fcfs.extra_flags == {"page-size": 16}
    assert bros.extra_flags == {"page-size": 16, "chunked-prefill-size": 512}


def test_the_pool_defaults_to_what_the_gpu_leaves() -> None:
    (job,) = jobs_for(options())
    assert 800_000 < job.pool_tokens < 900_000
    with pytest.raises(UnknownPolicyError):
        jobs_for(options(policies=("sjf",)))


def test_the_best_of_a_sweep_keeps_the_targets_first() -> None:
    def result(policy: str, attainment: float | None, be: float) -> dict[str, Any]:
        return {"policy": policy, "rt": {"attainment": attainment}, "be": {"tokens_per_s": be}}

    results = [
        result("fcfs/chunk=512", 0.9990, 10.0),
        result("fcfs/chunk=1024", 0.9985, 20.0),
        result("fcfs/chunk=2048", 0.9, 90.0),
        result("bros", 1.0, 50.0),
    ]
    mark_best(results)
    assert [r.get("sweep", {}).get("best") for r in results] == [False, True, False, None]
