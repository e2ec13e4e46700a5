import csv

import orjson
import pytest

from bros_sglang.evals.metrics.output_folder import OutputFolderError, claim_folder
from bros_sglang.evals.metrics.record import RequestRecord
from bros_sglang.evals.metrics.write import flatten, read_requests, write_requests, write_results
from bros_sglang.request_class import RequestClass

RECORDS = [
    RequestRecord("a", RequestClass.RT, 0.5, 10, 5, 5, 0.6, 0.7, 0.7, 0.02, 4, 3, 0, 100.0, 20.0),
    RequestRecord("b", RequestClass.BE, 0.0, 10, 5, 0, error="HTTP 500"),
    RequestRecord("c", RequestClass.BE, 0.0, 10, 5, 2, 0.3, 0.4, preemptions=2),
]


def test_requests_come_back_as_they_were(tmp_path):
    write_requests(tmp_path, [("fcfs", 0, RECORDS), ("bros", 0, RECORDS[:1]), ("fcfs", 1, [])])
    assert read_requests(tmp_path / "requests.parquet") == {
        ("fcfs", 0): RECORDS,
        ("bros", 0): RECORDS[:1],
    }


def test_results_as_json_and_csv(tmp_path):
    results = [
        {"policy": "fcfs", "rt": {"ttft_ms": {"p50": 1.5}}, "list": [1]},
        {"policy": "bros", "be": None},
    ]
    write_results(tmp_path, results)
    assert orjson.loads((tmp_path / "results.json").read_bytes()) == results
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert rows[0]["rt.ttft_ms.p50"] == "1.5"
    assert [row["policy"] for row in rows] == ["fcfs", "bros"]
    assert "list" not in flatten(results[0])


def test_a_folder_is_claimed_once(tmp_path):
    out = claim_folder(tmp_path / "deep" / "out", {"command": "x"})
    assert orjson.loads((out / "run.json").read_bytes())["command"] == "x"
    (out / "results.json").write_text("[]")
    with pytest.raises(OutputFolderError, match=r"holds another run \(started 20.*--overwrite"):
        claim_folder(out, {})
    claim_folder(out, {"command": "y"}, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["run.json"]


def test_foreign_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputFolderError, match="holds no earlier run"):
            claim_folder(tmp_path, {}, overwrite=overwrite)
    with pytest.raises(OutputFolderError, match="is not a folder"):
        claim_folder(tmp_path / "thesis.txt", {})
    assert (tmp_path / "thesis.txt").read_text() == "mine"
