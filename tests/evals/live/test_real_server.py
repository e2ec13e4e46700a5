"""The live client against real SGLang servers on the CPU."""

import orjson
import pytest
from typer.testing import CliRunner

from bros_sglang.cli.demo import app as demo_app
from bros_sglang.cli.eval_live import app as live_app
from bros_sglang.evals.metrics.write import read_requests


@pytest.mark.server
def test_a_real_server_is_started_measured_and_stopped(tmp_path):
    out = tmp_path / "out"
    args = ["--policies", "rt-alone,fcfs", "--seconds", "4", "--warmup", "1"]
    result = CliRunner().invoke(live_app, [*args, "--out", str(out)])
    assert result.exit_code == 0, result.output
    alone, mixed = orjson.loads((out / "results.json").read_bytes())
    assert alone["rt"]["finished"] == alone["rt"]["requests"] > 5
    assert (alone["be"]["requests"], mixed["be"]["requests"] >= 64) == (0, True)
    for measured in (alone, mixed):
        assert measured["tokens"]["conserved"] is True
        assert measured["rt"]["failed"] == measured["be"]["failed"] == 0
        assert measured["server_state"] == {"from": "/v1/loads"}
    # A token per chunk for RT: the times between tokens are the server's own.
    rt = [r for r in read_requests(out / "requests.parquet")["rt-alone", 1] if r.request_class == "rt"]
    assert all(r.generated_tokens == r.output_tokens for r in rt)
    # Same flags, so one server for both.
    assert [path.name for path in out.glob("server-*.log")] == ["server-rt-alone-1.log"]


@pytest.mark.server
def test_flags_that_a_server_refuses_are_explained_by_its_log(tmp_path):
    args = ["--policies", "fcfs", "--seconds", "1", "--server-args", "--no-such-flag 1"]
    result = CliRunner().invoke(live_app, [*args, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "while it started" in result.output
    assert "--no-such-flag" in result.output


@pytest.mark.slow
@pytest.mark.server
def test_the_demo_from_end_to_end(tmp_path):
    out = tmp_path / "demo"
    result = CliRunner().invoke(demo_app, ["--seconds", "10", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert all(len(line) <= 80 for line in (out / "table.txt").read_text().splitlines())
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    results = {r["policy"]: r for r in orjson.loads((out / "results.json").read_bytes())}
    assert list(results) == ["rt-alone", "fcfs", "priority", "bros"]
    # What scheduling is about, not how fast this machine is: RT waits behind BE under fcfs alone.
    assert results["bros"]["rt"]["ttft_ms"]["p50"] < results["fcfs"]["rt"]["ttft_ms"]["p50"] / 2
    assert all(r["tokens"]["conserved"] for r in results.values())
