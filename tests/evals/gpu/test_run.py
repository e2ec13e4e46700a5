"""Server arguments, stages and the command's own refusals."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bros_sglang.evals.gpu.budget import Budget
from bros_sglang.evals.gpu.cell import CellRecord
from bros_sglang.evals.gpu.child import ChildError, measured_by
from bros_sglang.evals.gpu.command import app
from bros_sglang.evals.gpu.run import TREE_CORE_ENV, GpuRun
from bros_sglang.evals.gpu.scale import DRY, REAL, Scale
from bros_sglang.evals.gpu.stages import STAGES
from bros_sglang.evals.gpu.stages.hicache import IO_BACKENDS
from bros_sglang.evals.gpu.store import CellStore
from bros_sglang.evals.gpu.sync_count import SyncCounter


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> GpuRun:
    scale: Scale = getattr(request, "param", REAL)
    for name in (scale.model, scale.second_model):  # as if written
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "generation_config.json").write_text("{}", encoding="utf-8")
    return GpuRun(tmp_path, scale, Budget(None), CellStore(tmp_path), lambda _line: None)


def flag(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


@pytest.mark.parametrize("run", [REAL, DRY], indirect=True)
def test_sglang_knows_every_argument(run: GpuRun) -> None:
    from sglang.srt.server_args import ServerArgs

    from bros_sglang import launch_args

    parser = argparse.ArgumentParser(allow_abbrev=False)
    ServerArgs.add_cli_args(parser)
    launch_args.add_arguments(parser)
    for policy in ("fcfs", "priority", "priority-mixed", "bros"):
        for io in IO_BACKENDS.values():
            extra = ("--enable-hierarchical-cache", "--hicache-ratio", "4", *io)
            for graphs in (None, (), ("--disable-prefill-cuda-graph", "--cuda-graph-max-bs-decode", "256")):
                arguments = run.arguments(policy, page_size=16, graphs=graphs, extra=extra)
                _, unknown = parser.parse_known_args(arguments)
                assert unknown == []


def test_servers_take_the_graphs_that_the_first_start_found(run: GpuRun) -> None:
    assert "--disable-decode-cuda-graph" in run.arguments("bros")
    run.store.put(CellRecord("start", "stock", "done", result={"graphs": "decode"}))
    arguments = run.arguments("bros")
    assert "--disable-decode-cuda-graph" not in arguments
    assert flag(arguments, "--cuda-graph-max-bs-decode") == "256"
    assert flag(arguments, "--attention-backend") == "triton"
    assert flag(arguments, "--schedule-policy") == "bros"


@pytest.mark.parametrize(("works", "core"), [(True, None), (False, "python")])
def test_the_python_tree_core_serves_where_the_rust_one_does_not_load(
    run: GpuRun, works: bool, core: str | None
) -> None:
    run.store.put(CellRecord("host", "host", "done", result={"rust_tree_core": {"works": works}}))
    assert run.env.get(TREE_CORE_ENV) == core


@pytest.mark.parametrize("run", [REAL, DRY], indirect=True)
def test_cells_have_names_of_their_own_and_needs_that_exist(run: GpuRun) -> None:
    cells = [cell for make in STAGES.values() for cell in make(run)]
    names = {(cell.stage, cell.name) for cell in cells}
    assert len(names) == len(cells)
    assert {cell.stage for cell in cells} == set(STAGES) - {"load-at-once", "load-mixed", "second-model"}
    seen: set[tuple[str, str]] = set()
    for cell in cells:
        assert set(cell.needs) <= seen, cell.key  # and are measured before
        seen.add((cell.stage, cell.name))


def test_every_cell_of_a_real_run_fits_a_command_of_ten_minutes(run: GpuRun) -> None:
    budget = Budget(600.0)
    for make in STAGES.values():
        for cell in make(run):
            assert budget.allows(cell.estimate_s + cell.start_s), cell.key


def test_a_measuring_process_gives_its_figures_or_the_end_of_its_log(tmp_path: Path) -> None:
    module = tmp_path / "measures.py"
    module.write_text(
        "import json, sys\n"
        "out = sys.argv[sys.argv.index('--json') + 1]\n"
        "print('measuring')\n"
        "if sys.argv[1] == 'bad': raise SystemExit('no GPU here')\n"
        "open(out, 'w').write(json.dumps({'figure': sys.argv[1]}))\n",
        encoding="utf-8",
    )
    env = {"PYTHONPATH": str(tmp_path)}
    log = tmp_path / "logs" / "a.log"
    assert measured_by("measures", ["good"], log, env=env, timeout_s=60.0) == {"figure": "good"}
    with pytest.raises(ChildError, match="no GPU here"):
        measured_by("measures", ["bad"], log, env=env, timeout_s=60.0)


def test_a_measuring_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(600)\n", encoding="utf-8")
    with pytest.raises(ChildError, match="was not done after"):
        measured_by("sleeps", [], tmp_path / "a.log", env={"PYTHONPATH": str(tmp_path)}, timeout_s=0.2)


def test_nothing_waits_on_a_cpu() -> None:
    counter = SyncCounter(gpu=False)

    class Allocator:
        def alloc(self, size: int) -> int:
            return size

    allocator: Any = Allocator()
    counter.wrap(allocator, "alloc", "not_there")
    assert allocator.alloc(5) == 5
    assert counter.per_call() == {"alloc": {"calls": 1, "waits_per_call": 0.0}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "nope"], "--stages: unknown nope; known are host, start"),
        (["--stages", ""], "--stages: unknown nothing"),
        (["--rates", "1,x"], "--rates '1,x': give requests per second"),
        (["--rates", "0"], "--rates '0'"),
        (["--only", "nope/*"], "--only 'nope/*': no cell"),
        (["--only", "load/*", "--stages", "host"], "--only 'load/*': no cell"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, arguments: list[str], message: str) -> None:
    told = CliRunner().invoke(app, ["--out", str(tmp_path / "run"), *arguments])
    assert told.exit_code == 2
    assert message in told.output


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    CellStore(tmp_path).write_results({"settings": json.loads(json.dumps(dataclasses.asdict(REAL)))})
    told = CliRunner().invoke(app, ["--out", str(tmp_path), "--dry-run"])
    assert told.exit_code == 2
    assert "holds a run with other settings (name, device" in told.output


def test_a_payload_that_is_no_folder_is_refused_before_anything_is_imported(tmp_path: Path) -> None:
    import subprocess

    command = [sys.executable, "-m", "bros_sglang.evals.gpu", "--payload", str(tmp_path / "none")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "is not a folder" in told.stderr
