"""What `bros eval validate` compares, and what it says about it; the measuring itself is marked slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bros_sglang.cli.eval_validate import _write, app
from bros_sglang.evals.metrics.record import RequestRecord
from bros_sglang.evals.metrics.run import Run, RunFacts
from bros_sglang.evals.replay.validate import (
    FIGURES,
    LEARN_S,
    LOADS,
    Comparison,
    arguments_as_flags,
    learnt,
)
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

RESULTS = Path(__file__).parents[3] / "evals" / "results"


def run(ttft_s: float, be_tokens: int = 1000, count: int = 20) -> Run:
    records = [
        RequestRecord(
            f"rt-{i}", RequestClass.RT, float(i) / 10, 10, 11, 11,
            first_token_s=i / 10 + ttft_s, last_token_s=i / 10 + ttft_s + 0.1, finish_s=i / 10 + ttft_s + 0.1,
        )
        for i in range(count)
    ]  # fmt: skip
    be = RequestRecord(
        "be-0", RequestClass.BE, 0.0, be_tokens - 1, 1, 1, first_token_s=1.0, last_token_s=1.0, finish_s=1.0
    )
    return Run([*records, be], RunFacts("fcfs", 10.0, passes=3))


def comparison(live: list[Run], replayed: list[Run]) -> Comparison:
    return Comparison("fcfs", LOADS[0], live, replayed, replayed, 0.01)


def test_a_figure_is_within_by_its_ratio_and_shows_its_rounds() -> None:
    live = [run(0.09), run(0.10), run(0.13)]
    rows = comparison(live, [run(0.112, be_tokens=800)] * 3).rows()
    assert [row["figure"] for row in rows] == list(FIGURES)
    by_name = {row["figure"]: row for row in rows}
    ttft = by_name["RT TTFT p50 ms"]
    assert ttft["live"] == pytest.approx(100.0)  # over the requests of all rounds
    assert ttft["live_rounds"] == pytest.approx([90.0, 100.0, 130.0])
    assert ttft["live_spread"] == pytest.approx(0.3)
    assert (ttft["ratio"], ttft["within"]) == (pytest.approx(1.12), True)
    assert by_name["RT TTFT p99 ms"]["live"] == pytest.approx(130.0)
    assert by_name["RT TPOT p50 ms"]["ratio"] == pytest.approx(1.0)
    be = by_name["BE tokens/s"]
    assert (be["live"], be["replay"], be["within"]) == (pytest.approx(100.0), pytest.approx(80.0), False)


def test_what_was_not_measured_is_not_within() -> None:
    nothing = Run([], RunFacts("fcfs", 10.0))
    rows = comparison([nothing], [run(0.1)]).rows()
    assert [row["within"] for row in rows] == [False] * len(FIGURES)
    assert rows[0]["live"] is rows[0]["ratio"] is rows[0]["live_spread"] is None
    unfitted = Comparison("fcfs", LOADS[0], [run(0.1)], [run(0.1)], [], 0.0).rows()
    assert [(row["within"], row["ratio_own_steps"]) for row in unfitted] == [(True, None)] * len(FIGURES)


def test_the_table_of_the_docs_is_made_from_what_is_written(tmp_path: Path) -> None:
    for name in ("validate", "."):
        (tmp_path / "results" / name).mkdir(parents=True, exist_ok=True)
    for name in ("validate/table.py", "into_docs.py"):
        (tmp_path / "results" / name).write_text((RESULTS / name).read_text())
    folder = tmp_path / "results" / "validate"
    _write(folder, [comparison([run(0.09), run(0.10), run(0.13)], [run(0.2)])])
    (folder / "run.json").write_text(json.dumps({"started": "2026-01-02T03:04:05"}))
    for name in ("validation.json", "validation.png", "requests.parquet"):
        assert (folder / name).stat().st_size > 100
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- validation: here -->\nold\n<!-- end of validation -->\nafter\n")
    for _ in range(2):  # again and again
        subprocess.run([sys.executable, folder / "table.py", page], check=True)
    text = page.read_text()
    assert "3 of 5 figures are within 15 %; of the others 2 differ by more" in text
    assert "| steady | fcfs | RT TTFT p50 ms | 100 | 90.0 / 100 / 130 | 200 | 2.00 | 2.00 | no |" in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("| RT TTFT p50 ms |") == 1


def test_a_replay_has_run_for_a_while_before_it_is_measured() -> None:
    rt = parse_workload("uniform:rate=4", RequestClass.RT, seconds=5.0)
    before = parse_workload("uniform:rate=4", RequestClass.RT, seconds=2 * LEARN_S, seed=1)
    both = list(learnt(rt, before))
    arrivals = [request.arrival_s for request in both]
    assert arrivals == sorted(arrivals)
    assert len({request.rid for request in both}) == len(both)
    late = [request for request in both if request.arrival_s >= LEARN_S]
    assert [(r.rid, r.prompt_tokens) for r in late] == [(r.rid, r.prompt_tokens) for r in rt]
    assert [r.arrival_s - LEARN_S for r in late] == pytest.approx([r.arrival_s for r in rt])


def test_arguments_of_a_server_become_flags_of_a_replay() -> None:
    assert arguments_as_flags(["--page-size", "16", "--mixed", "--a=b"]) == {
        "page-size": "16",
        "mixed": True,
        "a": "b",
    }


def test_unknown_policies_and_used_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for arguments in (["--policies", "sjf"], []):
        result = CliRunner().invoke(app, ["--out", str(tmp_path), *arguments])
        assert result.exit_code == 2


@pytest.mark.slow
@pytest.mark.server
def test_a_live_server_is_held_against_its_replay(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app,
        [
            "--out",
            str(out),
            "--policies",
            "bros",
            "--seconds",
            "15",
            "--rounds",
            "1",
            "--profile-seconds",
            "16",
        ],
    )
    assert result.exit_code in (0, 1), result.output  # 1: a figure is off, as it may be on a busy machine
    data = json.loads((out / "validation.json").read_text())
    assert len(data["figures"]) == 2 * len(FIGURES)
    assert all(figure["live"] and figure["replay"] for figure in data["figures"])
    for one in data["results"]:
        for kind in ("live", "replay"):
            assert all(result["tokens"]["conserved"] for result in one[kind])
            assert sum(result["rt"]["failed"] for result in one[kind]) == 0
    model = json.loads((out / "step-time-bros.json").read_text())
    assert set(model["frontend"]["classes"]) == {"rt", "be"}
    assert len(model["variation"]["factors"]) == 200
