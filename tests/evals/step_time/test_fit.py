from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from bros_sglang.cli.eval_profile import app
from bros_sglang.evals.step_time.fit import FitError, durations, fit_steps
from bros_sglang.evals.step_time.linear import LinearCoefficients, LinearStepTime, StepTimeFileError
from bros_sglang.evals.step_time.record import RecordedStep, StepRecorder, read_steps
from bros_sglang.evals.step_time.step import Step

if TYPE_CHECKING:
    from pathlib import Path

TRUTH = LinearStepTime(
    "truth",
    LinearCoefficients(
        prefill_pass_s=2e-3,
        decode_pass_s=1e-3,
        prefill_token_s=2e-5,
        attention_pair_s=1e-8,
        decode_row_s=1e-4,
        decode_context_token_s=2e-7,
    ),
)


def random_step(rng: np.random.Generator) -> Step:
    step = Step()
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            step.add_prefill(int(rng.integers(1, 500)), int(rng.integers(0, 800)))
    if not step.prefill_rows or rng.random() < 0.5:
        step.decode_rows = int(rng.integers(1, 64))
        step.decode_context_tokens = step.decode_rows * int(rng.integers(10, 900))
    return step


def recorded(count: int, *, noise: float = 0.0, overhead_s: float = 0.0) -> list[RecordedStep]:
    """Steps as an overlapping device yields them: launched one ahead, done in order."""
    rng = np.random.default_rng(0)
    out, now_s, free_s = [], 100.0, 0.0
    for index in range(count):
        step = random_step(rng)
        seconds = TRUTH.step_s(step) * (1 + noise * float(rng.standard_normal()))
        start_s = max(now_s, free_s)
        free_s = start_s + seconds
        out.append(RecordedStep(step, now_s, now_s + 1e-5, free_s, after_idle=index == 0))
        now_s = start_s + overhead_s  # the next is launched while this one computes
    return out


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_linear_truth_is_found_again(noise: float) -> None:
    model, report = fit_steps(recorded(2000, noise=noise), "found", blocking=False)
    rng = np.random.default_rng(1)
    for step in (random_step(rng) for _ in range(200)):
        assert model.step_s(step) == pytest.approx(TRUTH.step_s(step), rel=0.001 + 0.5 * noise)
    assert report.error_p50 == pytest.approx(
        0.67 * noise, abs=0.02
    )  # half of a normal lies within 0.67 sigma
    assert abs(report.bias) < 1e-9


def test_pauses_of_the_machine_are_left_out() -> None:
    steps = recorded(500)
    paused = [
        RecordedStep(s.step, s.launched_s, s.returned_s, s.done_s + 30.0, s.after_idle) if i == 250 else s
        for i, s in enumerate(steps)
    ]
    model, report = fit_steps(paused, "found", blocking=False)
    assert report.outliers == 1
    step = random_step(np.random.default_rng(3))
    assert model.step_s(step) == pytest.approx(TRUTH.step_s(step), rel=0.01)


def test_on_a_cpu_passes_are_timed_from_launch_to_launch() -> None:
    step = Step(decode_rows=1)
    steps = [
        RecordedStep(step, 1.0, 1.4, 1.5, after_idle=True),
        RecordedStep(step, 1.5, 1.9, 2.0, after_idle=False),
        RecordedStep(step, 9.0, 9.4, 9.5, after_idle=True),
    ]
    assert [seconds for _, seconds in durations(steps, blocking=True)] == pytest.approx([0.5])
    assert [seconds for _, seconds in durations(steps, blocking=False)] == pytest.approx([0.5, 0.5, 0.5])


def test_one_kind_of_pass_is_not_enough() -> None:
    steps = [one for one in recorded(400) if one.step.prefill_rows == 0]
    with pytest.raises(FitError, match="0 prefill passes"):
        fit_steps(steps, "found", blocking=False)


def test_a_recorder_writes_what_read_steps_reads(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    recorder = StepRecorder(path)
    step = Step(prefill_tokens=7, prefill_rows=1, prefill_context_tokens=9, attention_pairs=42)
    recorder.launched(1, step, 5.0, after_idle=True)
    recorder.done(1)
    recorder.done(2)  # launched before the recording began
    recorder.flush()
    (one,) = read_steps(path)
    assert (one.step, one.launched_s, one.after_idle) == (step, 5.0, True)
    assert one.done_s >= one.returned_s
    with path.open("a") as handle:
        handle.write('{"prefill_tok')  # the server was killed in the middle of a line
    assert len(read_steps(path)) == 1
    with path.open("a") as handle:
        handle.write("\n{}\n")
    with pytest.raises(StepTimeFileError, match="line 2"):
        read_steps(path)


def test_recorded_steps_are_fitted_without_a_server(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text("".join(one.to_line() + "\n" for one in recorded(300)))
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["--steps", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    model = LinearStepTime.load(out / "step-time.json")
    assert model.coefficients.decode_row_s == pytest.approx(1e-4, rel=0.01)
    assert (out / "step-time.png").stat().st_size > 10_000
    missing = CliRunner().invoke(app, ["--steps", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "b")])
    assert missing.exit_code == 2
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("policy", ["fcfs", "bros"])
def test_a_live_server_is_profiled(tmp_path: Path, policy: str) -> None:
    result = CliRunner().invoke(
        app,
        ["--out", str(tmp_path / "out"), "--seconds", "18", "--server-args", f"--schedule-policy {policy}"],
    )
    assert result.exit_code == 0, result.output
    data = json.loads((tmp_path / "out" / "step-time.json").read_text())
    assert data["blocking"] is True
    assert set(data["frontend"]["classes"]) == {"rt", "be"}
    assert all(ways["in_s"][0] >= 0 for ways in data["frontend"]["classes"].values())
    assert data["variation"]["factors"]
    steps = read_steps(tmp_path / "out" / "steps.jsonl")
    assert {one.step.prefill_rows > 0 for one in steps} == {True, False}
    if policy == "bros":
        assert any(one.step.prefill_rows and one.step.decode_rows for one in steps)  # mixed passes
