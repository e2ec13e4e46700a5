"""The whole script, on the CPU with a tiny model."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bros_sglang.evals.gpu.figures import Results
from bros_sglang.evals.gpu.preset import preset_of
from bros_sglang.evals.gpu.stages import STAGES
from bros_sglang.evals.gpu.store import read_results
from bros_sglang.evals.gpu.tables import measured_part


def gpu(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bros_sglang.evals.gpu", "--out", str(out), "--dry-run", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"}
    )


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(3600)
def test_every_stage_runs_and_a_second_command_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    out, archive = tmp_path / "run", tmp_path / "run.tgz"
    short = ("--archive", str(archive), "--budget-s", "110")
    first = gpu(out, "--stages", "host,ceilings,start", *short)
    assert first.returncode == 3, first.stdout + first.stderr  # too little for all of it
    assert "run the same command again" in first.stdout
    done = [record for record in read_results(out)[1] if record.status == "done"]
    assert done
    # A host that keeps nothing: the archive alone comes along.
    later = tmp_path / "later"
    second = gpu(later, "--archive", str(archive))
    assert "going on with" in second.stdout
    about, records = read_results(later)
    for record in records:
        assert record.status == "done", f"{record.stage}/{record.cell}: {record.reason}"
    assert second.returncode == 0, second.stdout + second.stderr
    kept = {(record.stage, record.cell): record.started for record in records}
    assert all(kept[record.stage, record.cell] == record.started for record in done)
    assert {record.stage for record in records} == set(STAGES) - {
        "load-at-once",
        "load-mixed",
        "second-model",
    }
    results = Results(about, records)
    assert results.of("start", "bros")["same_tokens"] == 4  # type: ignore[index]
    assert "## Mixed load" in measured_part(results)
    assert preset_of(results)["coefficients"]["load_back_token_s"] > 0.0
