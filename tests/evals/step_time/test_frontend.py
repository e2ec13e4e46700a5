"""What lies between client and scheduler: measured, kept, drawn and put into a replay."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bros_sglang.evals.metrics.record import RequestRecord
from bros_sglang.evals.metrics.run import Run, RunFacts
from bros_sglang.evals.step_time.fit import fit_steps
from bros_sglang.evals.step_time.frontend import ClassFrontend, Frontend, quantiles
from bros_sglang.evals.step_time.jitter import MeasuredVariation
from bros_sglang.evals.step_time.linear import (
    LinearCoefficients,
    LinearStepTime,
    StepTimeFileError,
    Variation,
)
from bros_sglang.evals.step_time.record import RecordedStep
from bros_sglang.evals.step_time.request_times import (
    FIRST,
    LAST,
    SENT,
    RequestRecorder,
    RequestTimes,
    measured_frontend,
    note_outputs,
    read_request_times,
    requests_path,
)
from bros_sglang.evals.step_time.step import Step
from bros_sglang.evals.workloads.request import WorkloadRequest
from bros_sglang.request_class import RequestClass

RT, BE = RequestClass.RT, RequestClass.BE


def request(rid: str, request_class: RequestClass = RT) -> WorkloadRequest:
    return WorkloadRequest(rid, request_class, 0.0, 8, 2, 2)


def test_draws_follow_what_was_measured_and_repeat() -> None:
    times = np.random.default_rng(0).exponential(0.01, 5000)
    measured = quantiles(times)
    assert measured is not None
    frontend = Frontend(by_class=(("rt", ClassFrontend(measured, (0.002,))),))
    drawn = [frontend.ways(request(f"rt-{i}")) for i in range(4000)]
    assert np.median([w.in_s for w in drawn]) == pytest.approx(np.median(times), rel=0.1)
    assert np.percentile([w.in_s for w in drawn], 99) == pytest.approx(np.percentile(times, 99), rel=0.2)
    assert {(w.back_s, w.last_s) for w in drawn} == {(0.002, 0.002)}
    assert drawn == [frontend.ways(request(f"rt-{i}")) for i in range(4000)]
    assert drawn != [frontend.ways(request(f"rt-{i}"), seed=1) for i in range(4000)]
    assert tuple(frontend.ways(request("be-1", BE))) == (0.0, 0.0, 0.0)  # nothing known of that class
    assert tuple(Frontend(0.25).ways(request("be-1", BE))) == (0.25, 0.0, 0.0)


def test_few_times_say_nothing_and_rounding_is_no_time_travel() -> None:
    assert quantiles([0.1] * 19) is None
    assert quantiles([-1e-6] * 20) == (0.0,) * 400


def test_a_step_time_file_keeps_ways_and_spread(tmp_path: Path) -> None:
    frontend = Frontend(by_class=(("rt", ClassFrontend((0.001, 0.002), (0.0, 0.5))),))
    model = LinearStepTime(
        "mine",
        LinearCoefficients(decode_pass_s=1e-3),
        frontend=frontend,
        variation=Variation((0.8, 1.2), 0.5, (0.1,)),
    )
    path = tmp_path / "mine.json"
    model.save(path)
    loaded = LinearStepTime.load(path)
    assert (loaded.frontend, loaded.variation) == (frontend, model.variation)
    for broken in (
        {"frontend": {"classes": {"rt": {"in_s": [2, 1], "back_s": [0]}}, "constant_s": 0}},
        {"frontend": {"classes": {"rt": {"in_s": [], "back_s": [0]}}, "constant_s": 0}},
        {"frontend": {"classes": {}, "constant_s": -1}},
        {"frontend": 3},
        {"variation": {"factors": [0.0, 1.0], "stalls_per_s": 0, "stalls_s": []}},
        {"variation": {"factors": ["x"], "stalls_per_s": 0, "stalls_s": []}},
        {"variation": {"factors": [1.0], "stalls_per_s": 1, "stalls_s": []}},
        {"variation": {"factors": [1.0], "stalls_per_s": 1, "stalls_s": [-1]}},
        {"variation": []},
    ):
        path.write_text(json.dumps({**model.describe(), **broken}))
        with pytest.raises(StepTimeFileError, match=r"mine\.json"):
            LinearStepTime.load(path)


def test_passes_vary_as_measured_and_add_up() -> None:
    rng = np.random.default_rng(1)
    steps, now_s = [], 0.0
    for index in range(4000):
        step = Step(decode_rows=4) if index % 2 else Step()
        if not step.decode_rows:
            step.add_prefill(100, 0)
        seconds = (0.01 if index % 2 else 0.03) * float(rng.lognormal(-0.02, 0.2))
        steps.append(RecordedStep(step, now_s, now_s, now_s + seconds, after_idle=False))
        now_s += seconds
    model, _ = fit_steps(steps, "found", blocking=False)
    assert np.std(model.variation.factors) == pytest.approx(0.2, rel=0.15)
    assert np.mean(model.variation.factors) == pytest.approx(1.0, rel=1e-3)
    varied = MeasuredVariation(model, seed=3)
    times = [varied.step_s(Step(decode_rows=4)) for _ in range(4000)]
    assert np.mean(times) == pytest.approx(0.01, rel=0.05)
    again = MeasuredVariation(model, seed=3)
    assert times[:50] == [again.step_s(Step(decode_rows=4)) for _ in range(50)]
    with pytest.raises(ValueError, match="no variation"):
        MeasuredVariation(LinearStepTime("bare", LinearCoefficients(decode_pass_s=1e-3)))


def test_events_of_both_processes_come_together(tmp_path: Path) -> None:
    steps = tmp_path / "steps.jsonl"
    tokenizer = RequestRecorder(requests_path(steps, "tokenizer"))
    scheduler = RequestRecorder(requests_path(steps, "scheduler"))
    tokenizer.note(SENT, "a")
    batch = SimpleNamespace(
        reqs=[
            SimpleNamespace(rid="a", output_ids=[5], finished_reason=None),
            SimpleNamespace(rid="b", output_ids=[5, 6], finished_reason=None),
        ]
    )
    note_outputs(scheduler, batch)
    batch.reqs[0] = SimpleNamespace(rid="a", output_ids=[5, 6], finished_reason="length")
    for _ in range(20):  # under overlap it comes by again: the first time counts
        note_outputs(scheduler, batch)
    for recorder in (tokenizer, scheduler):
        recorder._file.flush()
    with requests_path(steps, "scheduler").open("a") as handle:
        handle.write('{"event": "fir')
    times = read_request_times(steps)
    assert set(times) == {"a"}
    assert times["a"].sent_s <= times["a"].first_s <= times["a"].last_s  # type: ignore[operator]
    assert {FIRST, LAST} == {"first", "last"}


def test_ways_are_differences_of_the_clients_times_and_the_schedulers() -> None:
    records, times = [], {}
    for index in range(40):
        arrival_s = float(index)
        records.append(
            RequestRecord(
                f"rt-{index}", RT, arrival_s, 8, 2, 2,
                first_token_s=arrival_s + 0.5, last_token_s=arrival_s + 0.9, finish_s=arrival_s + 0.9,
            )
        )  # fmt: skip
        zero_s = 1000.0 + arrival_s
        times[f"x-rt-{index}"] = RequestTimes(zero_s + 0.004, zero_s + 0.497, zero_s + 0.897)
    run = Run(records, RunFacts("fcfs", 40.0, clock_zero_s=1000.0))
    ((name, ways),) = measured_frontend([run], times, ["x-"]).by_class
    assert name == "rt"
    assert set(ways.in_s) == {0.004}
    assert set(ways.back_s) == {0.003}
    assert measured_frontend([run], times, ["y-"]) == Frontend()


def test_stalls_of_the_machine_come_as_often_as_measured() -> None:
    steps, now_s = [], 0.0
    for index in range(4000):
        step = Step(decode_rows=4) if index % 2 else Step()
        if not step.decode_rows:
            step.add_prefill(100, 0)
        seconds = (0.01 if index % 2 else 0.03) + (0.5 if index % 40 == 0 else 0.0)
        steps.append(RecordedStep(step, now_s, now_s, now_s + seconds, after_idle=False))
        now_s += seconds
    model, report = fit_steps(steps, "found", blocking=False)
    assert report.outliers == 100
    assert model.step_s(Step(decode_rows=4)) == pytest.approx(0.01, rel=0.01)
    assert set(model.variation.stalls_s) == {0.5}
    varied = MeasuredVariation(model)
    times = [varied.step_s(step.step) for step in steps]
    assert 60 < sum(time_s > 0.2 for time_s in times) < 140
    assert sum(times) == pytest.approx(now_s, rel=0.25)
