import json

import pytest
import torch
from typer.testing import CliRunner

from bros_sglang.cli.eval_memory import app
from bros_sglang.evals.memory.churn import Churn, ChurnLoad, run_churn
from bros_sglang.evals.memory.locality import (
    Run,
    _copy_runs,
    _copy_scattered,
    copy_times,
    locality_of,
    runs_of,
)
from bros_sglang.evals.memory.pool_driver import PoolDriver
from bros_sglang.memory.integrity import check_integrity
from bros_sglang.request_class import RequestClass

BUSY = ChurnLoad(
    rt_arrivals_per_step=0.15, rt_output_mean=60, be_outstanding=24, decode_rows=32, promised_share=0.0
)


def test_runs_are_groups_of_neighbours_in_any_order():
    assert runs_of(torch.tensor([7, 3, 4, 10, 5, 8])) == [Run(3, 3), Run(7, 2), Run(10, 1)]
    assert runs_of(torch.tensor([], dtype=torch.int64)) == []
    measured = locality_of([torch.tensor([1, 2, 3]), torch.tensor([9, 11])])
    assert measured == (2, 1.5, 5 / 3)


def test_both_copies_bring_the_same_kv():
    kv = torch.arange(2 * 50 * 3, dtype=torch.float32).view(2, 50, 3)
    slots = torch.tensor([20, 5, 7, 6])
    scattered, in_runs = torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)
    _copy_scattered(kv, slots, scattered)
    _copy_runs(kv, runs_of(slots), in_runs)
    assert torch.equal(scattered[:, slots.argsort()], in_runs)


def test_copy_times_are_reported_per_label():
    kv = torch.arange(2 * 50 * 3, dtype=torch.float32).view(2, 50, 3)
    times = copy_times(kv, {"a": [torch.tensor([5, 6, 7, 20])], "b": [torch.tensor([1])] * 2}, repeats=1)["a"]
    assert times.megabytes == pytest.approx(4 * 2 * 3 * 4 / 1e6)
    assert times.scattered_ms > 0 < times.in_runs_ms


@pytest.mark.parametrize("page_size", [1, 16])
def test_churn_keeps_the_books(page_size):
    driver = PoolDriver(16_000, page_size=page_size, max_context=8192)
    churn = Churn(driver, BUSY, keep_on_preempt=True)

    def check(step):
        if step % 20 == 0:
            waiting = [*churn._resumed, *churn._waiting[RequestClass.BE], *churn._waiting[RequestClass.RT]]
            check_integrity(driver.allocator, driver.tree, churn._running, waiting)

    result = churn.run(400, sample_every=20, on_step=check)
    assert result.finished > 50
    assert result.preemptions > 0
    assert result.rt.requests > 0 < result.be.requests
    assert set(result.occupancy.unique().tolist()) <= {0, 1, 2, 3}


def test_keeping_kv_loses_less_than_dropping_it():
    kept = run_churn("bros", pool=16_000, page_size=1, steps=400, load=BUSY)
    dropped = run_churn("stock", pool=16_000, page_size=1, steps=400, load=BUSY)
    assert dropped.preemptions > 0
    assert kept.redone_tokens / max(kept.preemptions, 1) < dropped.redone_tokens / dropped.preemptions


def test_micro_writes_what_was_asked_for(tmp_path):
    out = tmp_path / "micro.json"
    run = CliRunner().invoke(app, ["--micro", "--pool", "40000", "--repeats", "5", "--json", str(out)])
    assert run.exit_code == 0, run.output
    rows = json.loads(out.read_text())
    assert all({"operation", "size", "allocator", "median_us"} <= row.keys() for row in rows)
    for operation in ("alloc", "free", "evict", "page16_alloc", "page16_free"):
        assert {row["allocator"] for row in rows if row["operation"] == operation} == {"stock", "bros"}
    assert {row["size"] for row in rows if row["operation"] == "alloc"} >= {1, 8192}
    assert all(row["median_us"] > 0 for row in rows)


def test_placement_is_shown_and_drawn(tmp_path):
    out, picture = tmp_path / "placement.json", tmp_path / "pool.png"
    run = CliRunner().invoke(
        app,
        f"--pool 30000 --steps 400 --layers 1 --device cpu --json {out} --picture {picture}".split(),
    )
    assert run.exit_code == 0, run.output
    rows = {row["measure"]: row for row in json.loads(out.read_text())}
    assert rows["best-effort: tokens per run"]["bros"] >= 1
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--json", "/nowhere/at/all.json"], "does not exist"),
        (["--picture", "pool.jpeg"], ".png or .svg"),
        (["--micro", "--picture", "pool.png"], "does not go with --micro"),
    ],
)
def test_bad_input_is_explained(arguments, message):
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 2
    assert message in run.output
