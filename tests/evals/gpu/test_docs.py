"""From a finished run to the page and to a preset."""

import json
from pathlib import Path

import pytest

from bros_sglang.evals.gpu.cell import CellRecord
from bros_sglang.evals.gpu.figures import Results, load_rows, step_added, verdicts, work_conserving_bound
from bros_sglang.evals.gpu.preset import PresetError, preset_of
from bros_sglang.evals.gpu.store import CellStore
from bros_sglang.evals.gpu.tables import markdown_table, measured_part
from bros_sglang.evals.gpu.write_docs import BEGIN, END, DocsError, put_into, replaced
from bros_sglang.evals.step_time.linear import LinearStepTime
from bros_sglang.evals.step_time.presets import step_time_model
from tests.evals.gpu.run_records import COEFFICIENTS, about, load, records, results


def test_be_is_held_against_the_work_conserving_bound() -> None:
    rows = {row.policy: row for row in load_rows(results())}
    # Priority reached 10,500 tokens/s in all, of which RT alone had 500.
    assert rows["priority"].of_bound == pytest.approx(1.0)
    assert rows["bros"].of_bound == pytest.approx(0.97)
    assert rows["rt-alone"].of_bound is None


def test_no_bound_where_a_run_is_missing() -> None:
    alone = load("rt-alone", 2.0, rt=500.0, be=0.0, attainment=1.0).result
    fcfs = load("fcfs", 2.0, rt=500.0, be=900.0, attainment=0.5).result
    assert work_conserving_bound([alone]) is None
    assert work_conserving_bound([fcfs]) is None
    assert work_conserving_bound([alone, fcfs]) == pytest.approx(900.0)


def test_what_is_wanted_is_held_against_what_was_measured() -> None:
    found = {verdict.wanted: verdict for verdict in verdicts(results())}
    by_end = {wanted.split(": ")[-1]: verdict for wanted, verdict in found.items()}
    assert by_end["RT within targets at most 0.5 points below RT alone"].met
    assert by_end["BE at least 95% of the work-conserving bound"].measured == "97%"
    assert by_end["bros adds under 2% to the median decode step with every seat taken"].measured == "+1.0%"
    assert by_end["the replay is within 10% of the live run"].met


def test_a_wanted_figure_that_is_not_met_says_so() -> None:
    worse = load("bros", 1.5, rt=500.0, be=9000.0, attainment=0.95)
    kept = [record for record in records() if (record.stage, record.cell) != ("load", "bros-1.5")]
    found = verdicts(Results(about(), [*kept, worse]))
    assert [verdict.met for verdict in found[:2]] == [False, False]
    assert found[0].measured == "5.0 points below"


def test_nothing_measured_says_nothing() -> None:
    empty = Results(about(), [])
    assert verdicts(empty) == []
    assert step_added(empty) is None
    assert measured_part(empty).strip() == ""


def test_every_section_is_there_and_the_ceilings_stand_beside_the_figures() -> None:
    text = measured_part(results(), ["gpu-load.png"])
    for heading in (
        "Host",
        "Wanted, and measured",
        "What the device reaches at its best",
        "Starts and answers",
        "Mixed load",
        "The scheduler's share of a step, 256 running",
        "Waits for the device",
        "Memory",
        "Hierarchical cache, pool too small",
        "Attention back ends",
        "Step times",
        "Replay against the live run",
        "Not measured",
    ):
        assert f"## {heading}\n" in text, heading
    assert "NVIDIA H200, driver 580.159.03" in text
    assert "python -m bros_sglang.evals.gpu --out run" in text
    assert "`sharegpt:rate=1.5 [sharegpt_8k_lengths.csv]`, `paper:outstanding=128`; 45 s each" in text
    assert "30.0 (60%)" in text  # a copy, of the link's 50 GB/s
    assert "| attention/flashinfer-page1-bros | skipped | flashinfer is not installed |" in text
    assert "images/gpu-load.png" in text
    assert "images/gpu-fit.png" not in text  # not drawn


def test_a_table_survives_a_bar_in_a_cell() -> None:
    assert markdown_table(("a",), [["x | y"]]).splitlines()[-1] == "| x \\| y |"


def test_only_the_measured_part_of_the_page_changes() -> None:
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    assert replaced(page, "new\n") == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert replaced(replaced(page, "new"), "new") == replaced(page, "new")


@pytest.mark.parametrize("page", ["", BEGIN, f"{END} {BEGIN}", f"{BEGIN} {END} {BEGIN} {END}"])
def test_a_page_without_its_marks_is_left_alone(page: str) -> None:
    with pytest.raises(DocsError, match="once each and in this order"):
        replaced(page, "new")


def finished(folder: Path, device: str) -> Path:
    store = CellStore(folder)
    for record in records():
        store.put(record)
    store.write_results(about(device))
    return folder


def test_a_run_goes_into_the_page_with_its_picture(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "gpu.md"
    page.parent.mkdir()
    page.write_text(f"# On a GPU\n\n{BEGIN}\n{END}\n", encoding="utf-8")
    assert put_into(page, finished(tmp_path / "run", "cuda")) == len(records()) - 1
    assert "## Mixed load" in page.read_text(encoding="utf-8")
    assert (page.parent / "images" / "gpu-load.png").read_bytes().startswith(b"\x89PNG")


def test_a_dry_run_does_not_get_into_the_page_by_mistake(tmp_path: Path) -> None:
    page = tmp_path / "gpu.md"
    page.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    run = finished(tmp_path / "run", "cpu")
    with pytest.raises(DocsError, match="its figures mean nothing"):
        put_into(page, run)
    assert not (tmp_path / "images").exists()
    put_into(page, run, allow_dry_run=True)
    assert "the figures mean nothing" in page.read_text(encoding="utf-8")


def test_a_preset_is_read_back_by_the_replay(tmp_path: Path) -> None:
    file = tmp_path / "h200.json"
    file.write_text(json.dumps(preset_of(results())), encoding="utf-8")
    model = step_time_model(str(file), model="llama3-8b", gpu="h200")
    assert isinstance(model, LinearStepTime)
    assert model.coefficients.prefill_token_s == COEFFICIENTS["prefill_token_s"]
    # 131,072 bytes of KV a token over the 52 GB/s that were measured.
    assert model.coefficients.load_back_token_s == pytest.approx(131_072 / 52e9)
    assert not model.blocking
    provenance = json.loads(file.read_text(encoding="utf-8"))["provenance"]
    assert provenance["device"]["name"] == "NVIDIA H200"
    assert provenance["ceilings"]["gemm_tflops"] == 790.0


def test_a_run_without_its_profile_gives_no_preset() -> None:
    only = [CellRecord("ceilings", "ceilings", "done", result={"to_device_gb_per_s": 50.0})]
    with pytest.raises(PresetError, match="no finished stage profile"):
        preset_of(Results(about(), only))
