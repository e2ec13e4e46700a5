import re

import orjson
import pytest

from bros_sglang.evals.metrics.output_folder import claim_folder
from bros_sglang.evals.metrics.record import RequestRecord
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.metrics.run import Run, RunFacts, StateSample
from bros_sglang.evals.metrics.write import write_requests, write_results
from bros_sglang.evals.report.capacity import CapacityPoint, capacities
from bros_sglang.evals.report.page import write_report
from bros_sglang.evals.report.palette import colours
from bros_sglang.evals.report.result_set import ReportError, load_all, load_result_set
from bros_sglang.request_class import RequestClass

PNG = b"\x89PNG\r\n\x1a\n"


def records(policy, rate):
    late = 0.5 if policy == "fcfs" else 0.0
    made = []
    for i in range(int(10 * rate)):
        at = i / rate
        ttft = 0.02 + late + 0.01 * (i % 7)
        made.append(
            RequestRecord(
                f"rt-{i}",
                RequestClass.RT,
                arrival_s=at,
                prompt_tokens=100,
                output_tokens=11,
                generated_tokens=11,
                first_token_s=at + ttft,
                last_token_s=at + ttft + 0.1,
                finish_s=at + ttft + 0.1,
                on_time_tokens=11,
                ttft_ms=100.0,
                tpot_ms=20.0,
            )
        )
        if policy != "rt-alone":
            made.append(
                RequestRecord(f"be-{i}", RequestClass.BE, at, 200, 21, 21, at + 0.3, at + 0.6, at + 0.6)
            )
    return made


def make_folder(path, rate=6.0, policies=("rt-alone", "fcfs", "bros"), samples=()):
    claim_folder(path, {"command": "bros eval <live> & more", "workloads": {"rt": "sharegpt:rate=6"}})
    runs = [(policy, 1, records(policy, rate)) for policy in policies]
    write_results(
        path, [compute_result(Run(r, RunFacts(p, end_s=10.0, samples=samples))) for p, _, r in runs]
    )
    write_requests(path, runs)
    return path


def test_the_page_holds_everything_itself(tmp_path):
    samples = [StateSample(1.0, 10, 20, 30, 100)]
    sets = load_all([make_folder(tmp_path / "run", samples=samples)])
    page = write_report(sets, tmp_path / "report", "A title")
    html = page.read_text()
    assert html.count('src="data:image/png;base64,') == 4
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert "bros eval &lt;live&gt; &amp; more" in html
    assert "Tokens are conserved" in html
    results = orjson.loads((tmp_path / "run" / "results.json").read_bytes())
    results[0]["tokens"]["conserved"] = False
    (tmp_path / "run" / "results.json").write_bytes(orjson.dumps(results))
    again = write_report(load_all([tmp_path / "run"]), tmp_path / "again", "A title").read_text()
    assert "Tokens are conserved" not in again
    assert "the token books do not balance" in again
    for policy in ("rt-alone", "fcfs", "bros"):
        assert f"{policy}</td>" in html
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {
        "index.html", "report.json", "report.csv", "rt_timeline.png", "latency_cdf.png", "be_throughput.png",
        "kv_split.png",
    }  # fmt: skip
    assert all(p.read_bytes().startswith(PNG) for p in (tmp_path / "report").glob("*.png"))
    assert len(orjson.loads((tmp_path / "report" / "report.json").read_bytes())) == 3


def test_several_rates_give_a_capacity_curve(tmp_path):
    folders = [make_folder(tmp_path / f"rate{rate}", rate) for rate in (2.0, 4.0, 8.0)]
    write_report(load_all(folders), tmp_path / "report", "t")
    rows = {row["policy"]: row for row in orjson.loads((tmp_path / "report" / "capacity.json").read_bytes())}
    assert rows["bros"]["rt_requests_per_s"] == pytest.approx(8.0)
    assert rows["bros"]["be_tokens_per_s"] > 0
    assert rows["fcfs"]["rt_requests_per_s"] is None
    assert (tmp_path / "report" / "capacity.png").is_file()


def test_a_lucky_rate_above_a_failed_one_is_no_capacity():
    points = [CapacityPoint("p", rate, share, 10.0 * rate) for rate, share in ((1, 1.0), (2, 0.5), (3, 1.0))]
    assert capacities(points)[0] == {
        "policy": "p",
        "attainment_wanted": 0.99,
        "rt_requests_per_s": 1,
        "be_tokens_per_s": 10.0,
    }


def test_a_report_without_requests_still_has_table_and_bars(tmp_path):
    folder = make_folder(tmp_path / "run")
    (folder / "requests.parquet").unlink()
    html = write_report(load_all([folder]), tmp_path / "report", "t").read_text()
    assert html.count("data:image/png") == 1


def test_a_report_is_made_again_but_nothing_else_is_replaced(tmp_path):
    sets = load_all([make_folder(tmp_path / "run")])
    write_report(sets, tmp_path / "report", "one")
    assert "two" in write_report(sets, tmp_path / "report", "two").read_text()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "index.html").write_text("mine")
    with pytest.raises(ReportError, match="holds no earlier report"):
        write_report(sets, tmp_path / "thesis", "t")
    assert (tmp_path / "thesis" / "index.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no results.json"),
        ("{", "is not a results.json"),
        ('[{"policy": 1}]', "is not a results.json"),
        ("[]", "holds no results"),
    ],
)
def test_bad_folders_are_explained(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ReportError, match=message):
        load_result_set(tmp_path)


def test_a_broken_parquet_is_explained(tmp_path):
    folder = make_folder(tmp_path / "run")
    (folder / "requests.parquet").write_bytes(b"junk")
    with pytest.raises(ReportError, match=r"requests.parquet cannot be read"):
        load_result_set(folder)


def test_folders_of_one_name_are_told_apart(tmp_path):
    folders = [make_folder(tmp_path / parent / "run") for parent in ("a", "b")]
    assert [s.name for s in load_all(folders)] == ["a/run", "b/run"]


def test_failures_unbalanced_books_and_a_busy_client_are_pointed_out(tmp_path):
    folder = make_folder(tmp_path / "run")
    results = orjson.loads((folder / "results.json").read_bytes())
    results[1]["rt"]["failed"] = 3
    results[2]["client"] = {"cpu_share": 0.95, "lag_ms_p99": 55.0}
    results[2]["tokens"]["conserved"] = False
    write_results(folder, results)
    html = write_report(load_all([folder]), tmp_path / "report", "t").read_text()
    for text in ("fcfs: 3 requests failed", "bros: the token books", "used 95% of its core", "55 ms late"):
        assert text in html


def test_every_policy_has_a_colour_of_its_own():
    names = ["fcfs", "bros", "vllm", "tgi", "mine"]
    assert len(set(colours(names).values())) == len(names)
    assert colours(["bros"])["bros"] == colours(names)["bros"]
