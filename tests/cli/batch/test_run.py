"""`bros batch run` from end to end against the mock server."""

import gzip
import os
import sys
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from bros_sglang.mock_server import FaultPlan
from tests.cli.batch.corpus_files import read_lines, request_line, results, write_lines
from tests.cli.batch.in_process import run_batch


def ids(lines):
    return [line["custom_id"] for line in lines]


@pytest.fixture
def corpus(tmp_path):
    return write_lines(tmp_path / "in.jsonl", [request_line(f"r{n}", f"document {n}") for n in range(50)])


def test_every_request_is_answered_in_the_openai_format(mock_server, batch, corpus, tmp_path):
    server = mock_server()
    done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", server.url)
    assert done.exit_code == 0, done.output
    output, errors, record = results(tmp_path / "out")
    assert sorted(ids(output)) == sorted(f"r{n}" for n in range(50))
    assert errors == []
    first = next(line for line in output if line["custom_id"] == "r7")
    assert first["error"] is None
    assert first["id"].startswith("batch_req_")
    assert first["response"]["status_code"] == 200
    assert first["response"]["body"]["choices"][0]["message"]["content"].endswith("document 7")
    assert record["state"] == "finished"
    assert record["counts"] == {"total": 50, "ok": 50, "failed": 0, "rejected": 0, "no_longer_in_input": 0}
    assert record["tokens"]["completion"] == 50 * 8
    assert record["versions"]["bros-sglang"]
    assert "finished: 50 of 50 done" in done.output


def test_the_same_command_again_sends_nothing(mock_server, batch, corpus, tmp_path):
    server = mock_server()
    for _ in range(2):
        assert batch("run", corpus, "-o", tmp_path / "out", "--endpoint", server.url).exit_code == 0
    assert server.counts["requests"] == 50
    output, _, record = results(tmp_path / "out")
    assert len(output) == 50
    assert [session["finished"] for session in record["sessions"]] == [50, 0]
    assert record["tokens"]["completion"] == 50 * 8


def test_faults_are_tried_again_and_none_is_lost(mock_server, batch, tmp_path):
    marks = ["500*1", "503*1", "429*2", "cut*1", "cut-mid*1", "broken*1", "empty*1"]
    lines = [request_line(f"r{n}", f"text {n} [[mock:{mark}]]") for n, mark in enumerate(marks * 3)]
    server = mock_server(retry_after_s=0.01)
    done = batch(
        "run", write_lines(tmp_path / "in.jsonl", lines), "-o", tmp_path / "out", "--endpoint", server.url
    )
    assert done.exit_code == 0, done.output
    output, errors, record = results(tmp_path / "out")
    assert sorted(ids(output)) == sorted(f"r{n}" for n in range(21))
    assert errors == []
    retries = record["sessions"][-1]["retries"]
    assert retries["http_429"] == 6
    assert retries["connection_lost"] == 6
    assert retries["invalid_response"] == 6


def test_a_4xx_is_final_and_a_lasting_5xx_fails(mock_server, batch, tmp_path):
    lines = [
        request_line("bad", "x [[mock:400]]"),
        request_line("sick", "x [[mock:500]]"),
        request_line("ok"),
    ]
    server = mock_server()
    out = tmp_path / "out"
    corpus = write_lines(tmp_path / "in.jsonl", lines)
    done = batch("run", corpus, "-o", out, "--endpoint", server.url, "--max-attempts", 2)
    assert done.exit_code == 1
    output, errors, record = results(out)
    assert ids(output) == ["ok"]
    found = {line["custom_id"]: line for line in errors}
    assert found["bad"]["response"]["status_code"] == 400
    assert found["bad"]["error"]["code"] == "http_400"
    assert found["bad"]["error"]["attempts"] == 1
    assert found["sick"]["error"]["attempts"] == 2
    assert record["counts"]["failed"] == 2
    assert server.counts["fault_400"] == 1
    assert server.counts["fault_500"] == 2


def test_retry_asks_for_the_errors_alone(mock_server, batch, tmp_path):
    lines = [request_line(f"r{n}", f"{n} [[mock:500*2]]" if n < 3 else str(n)) for n in range(10)]
    server = mock_server()
    out = tmp_path / "out"
    corpus = write_lines(tmp_path / "in.jsonl", [*lines, b"{not json"])
    first = batch("run", corpus, "-o", out, "--endpoint", server.url, "--max-attempts", 1)
    assert first.exit_code == 1
    assert sorted(ids(results(out)[1]), key=str) == [None, "r0", "r1", "r2"]
    sent = server.counts["requests"]
    second = batch("retry", out)
    assert second.exit_code == 1, second.output
    assert server.counts["requests"] == sent + 3
    third = batch("retry", out)
    assert third.exit_code == 1, third.output
    output, errors, record = results(out)
    assert sorted(ids(output)) == sorted(f"r{n}" for n in range(10))
    assert [line["error"]["source"] for line in errors] == ["in.jsonl:11"]
    assert record["counts"] == {"total": 11, "ok": 10, "failed": 0, "rejected": 1, "no_longer_in_input": 0}
    assert len(list(out.glob("errors.retried-*.jsonl"))) == 2


def test_bad_lines_go_to_errors_and_the_rest_is_done(mock_server, batch, tmp_path):
    lines = [
        request_line("a"),
        b"{not json",
        request_line(...),
        request_line("a", "again"),
        request_line("b", url="/v1/embeddings"),
        request_line("c", body={"model": "mock", "messages": []}),
        request_line("d", body={"model": "other", "messages": [{"role": "user", "content": "x"}]}),
        request_line(7),
        b"[1, 2]",
        request_line("e", method="GET"),
        b"",
        request_line("f"),
    ]
    server = mock_server()
    corpus = write_lines(tmp_path / "in.jsonl", lines)
    for _ in range(2):  # going on must not repeat them
        done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", server.url)
        assert done.exit_code == 1, done.output
        output, errors, record = results(tmp_path / "out")
        assert sorted(ids(output)) == ["a", "f"]
        by_source = {line["error"]["source"]: line for line in errors}
        assert {source: line["error"]["code"] for source, line in by_source.items()} == {
            "in.jsonl:2": "invalid_json",
            "in.jsonl:3": "missing_custom_id",
            "in.jsonl:4": "duplicate_custom_id",
            "in.jsonl:5": "invalid_url",
            "in.jsonl:6": "invalid_body",
            "in.jsonl:7": "model_not_found",
            "in.jsonl:8": "missing_custom_id",
            "in.jsonl:9": "invalid_json",
            "in.jsonl:10": "invalid_method",
        }
        assert len(errors) == 9
        assert by_source["in.jsonl:4"]["custom_id"] is None  # "a" is in output, and nowhere else
        assert "first at in.jsonl:1" in by_source["in.jsonl:4"]["error"]["message"]
        assert by_source["in.jsonl:5"]["custom_id"] == "b"
        assert record["counts"]["rejected"] == 9
    assert server.counts["requests"] == 2


def test_strict_sends_nothing_when_a_line_is_bad(mock_server, batch, tmp_path):
    server = mock_server()
    corpus = write_lines(tmp_path / "in.jsonl", [request_line("a"), b"{not json", request_line("b")])
    done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", server.url, "--strict")
    assert done.exit_code == 2
    assert "in.jsonl:2: not JSON" in done.output
    assert server.counts.get("requests", 0) == 0


def template_inputs(folder: Path) -> list[Path]:
    rows = [{"text": f"text {n}", "lang": "en"} for n in range(3)]
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(b"".join(orjson.dumps(row) + b"\n" for row in rows)))
    (folder / "rows.csv.zst").write_bytes(
        zstandard.compress(b'text,lang\n"text 0, with comma",en\n"two\nlines",en\ntext 2,en\n')
    )
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    texts = folder / "texts" / "deep"
    texts.mkdir(parents=True)
    (texts / "a.txt").write_text("text a")
    (folder / "texts" / "b.md").write_text("text b")
    return [folder / "rows.jsonl.gz", folder / "rows.csv.zst", folder / "rows.parquet", folder / "texts"]


def test_templates_over_every_format(mock_server, batch, tmp_path):
    server = mock_server(bros=True)
    inputs = template_inputs(tmp_path)
    out = tmp_path / "out"
    options = ["--prompt", "Summarise: {text}", "--max-tokens", 5, "--param", "temperature=0", "--ordered"]
    done = batch("run", *inputs, "-o", out, "--endpoint", server.url, *options)
    assert done.exit_code == 0, done.output
    output, _, record = results(out)
    assert ids(output) == [
        "rows.jsonl.gz:1",
        "rows.jsonl.gz:2",
        "rows.jsonl.gz:3",
        "rows.csv.zst:2",
        "rows.csv.zst:3",
        "rows.csv.zst:5",
        "rows.parquet:1",
        "rows.parquet:2",
        "rows.parquet:3",
        "texts/b.md",
        "texts/deep/a.txt",
    ]
    content = {
        line["custom_id"]: line["response"]["body"]["choices"][0]["message"]["content"] for line in output
    }
    assert content["rows.csv.zst:3"] == "echo: Summarise: two\nlines"
    assert content["texts/deep/a.txt"] == "echo: Summarise: text a"
    assert output[0]["response"]["body"]["usage"]["completion_tokens"] == 5
    assert output[0]["response"]["body"]["model"] == "mock"  # the server's only one
    assert server.counts["be_tagged"] == 11
    assert record["servers"][server.url].startswith("bros-sglang")


def test_a_missing_template_field_is_named(mock_server, batch, tmp_path):
    server = mock_server()
    table = tmp_path / "t.csv"
    table.write_text("title,body\nx,y\n")
    done = batch("run", table, "-o", tmp_path / "out", "--endpoint", server.url, "--prompt", "{text}")
    assert done.exit_code == 2
    assert "t.csv: has no column 'text'; its columns are title, body" in done.output
    rows = write_lines(tmp_path / "t.jsonl", [{"text": "x"}, {"body": "y"}, {"text": None}])
    done = batch("run", rows, "-o", tmp_path / "out2", "--endpoint", server.url, "--prompt", "{text}")
    assert done.exit_code == 1
    _, errors, _ = results(tmp_path / "out2")
    assert sorted(line["error"]["message"] for line in errors) == [
        "t.jsonl:2: template field 'text' is not in the row; the row has body",
        "t.jsonl:3: template field 'text' is null; the row has text",
    ]


def test_standard_input_and_parquet_output(mock_server, tmp_path, batch, monkeypatch):
    server = mock_server()
    read, write = os.pipe()
    os.write(write, b"".join(orjson.dumps(request_line(f"r{n}")) + b"\n" for n in range(5)))
    os.close(write)
    with os.fdopen(read, "rb") as pipe, monkeypatch.context() as patch:
        stdin = open(pipe.fileno(), closefd=False)  # noqa: SIM115
        patch.setattr(sys, "stdin", stdin)
        outcome = run_batch(["-"], tmp_path / "out", server.url, to="parquet")
    assert outcome.state == "finished"
    table = pq.read_table(tmp_path / "out" / "output.parquet").to_pylist()
    assert sorted(row["custom_id"] for row in table) == [f"r{n}" for n in range(5)]
    assert table[0]["text"] == "echo: hello"
    assert table[0]["completion_tokens"] == 8
    assert orjson.loads(table[0]["body"])["object"] == "chat.completion"


def test_two_servers_share_the_work_and_one_may_go(mock_server, batch, corpus, tmp_path):
    servers = [mock_server(latency_s=0.01), mock_server(latency_s=0.01)]
    endpoints = [part for server in servers for part in ("--endpoint", server.url)]
    done = batch("run", corpus, "-o", tmp_path / "out", *endpoints, "--concurrency", 4)
    assert done.exit_code == 0, done.output
    assert sum(server.counts["ok"] for server in servers) == 50
    assert all(server.counts["ok"] > 0 for server in servers)
    servers[0].stop()
    done = batch("run", corpus, "-o", tmp_path / "out2", *endpoints)
    assert done.exit_code == 0, done.output
    assert "going on without it" in done.output
    assert len(results(tmp_path / "out2")[0]) == 50


def test_tags_go_where_they_are_understood(mock_server, batch, corpus, tmp_path):
    plain, bros = mock_server(refuse_unknown_fields=True), mock_server(bros=True)
    assert batch("run", corpus, "-o", tmp_path / "a", "--endpoint", plain.url).exit_code == 0
    assert plain.counts["be_tagged"] == 0
    done = batch("run", corpus, "-o", tmp_path / "b", "--endpoint", bros.url, "--tag", "never")
    assert done.exit_code == 0
    assert bros.counts["be_tagged"] == 0
    done = batch("run", corpus, "-o", tmp_path / "c", "--endpoint", bros.url, "--within", "2h")
    assert done.exit_code == 0
    assert bros.counts["be_tagged"] == 50
    assert results(tmp_path / "c")[2]["deadline_at"] is not None


def test_many_failures_in_a_row_stop_the_run(mock_server, batch, tmp_path):
    lines = [request_line(f"r{n}", f"{n} [[mock:403]]") for n in range(40)]
    corpus = write_lines(tmp_path / "in.jsonl", lines)
    options = ["--endpoint", mock_server().url, "--max-failures-in-a-row", 10, "--concurrency", 2]
    done = batch("run", corpus, "-o", tmp_path / "out", *options)
    assert done.exit_code == 3
    assert "the last 10 requests all failed, the last one with: HTTP 403" in done.output
    _, errors, record = results(tmp_path / "out")
    assert 10 <= len(errors) < 15
    assert record["state"] == "stopped"


def test_prefix_groups_bring_cache_hits(mock_server, batch, tmp_path):
    systems = [f"{n} " * 200 for n in range(40)]
    lines = [
        request_line(
            f"r{n}", "", body={"model": "mock", "messages": [{"role": "user", "content": systems[n % 40]}]}
        )
        for n in range(400)
    ]
    corpus = write_lines(tmp_path / "in.jsonl", lines)
    cached = {}
    for window in (0, 4096):
        server = mock_server(prefix_blocks=40)  # a cache of a few prompts
        out = tmp_path / f"out{window}"
        options = ["--group-window", window, "--concurrency", 1]
        assert batch("run", corpus, "-o", out, "--endpoint", server.url, *options).exit_code == 0
        record = results(out)[2]
        cached[window] = record["tokens"]["cached"] / record["tokens"]["prompt"]
    assert cached[0] < 0.01
    assert cached[4096] > 0.8
    assert record["sessions"][0]["prefix_grouping"]["as_sent"] > 0.8


def test_json_output_is_one_object_a_line(mock_server, batch, corpus, tmp_path):
    done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", mock_server().url, "--json")
    events = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "progress"
    assert events[-1]["event"] == "ended"
    assert events[-1]["counts"]["ok"] == 50


def test_quiet_says_nothing(mock_server, batch, corpus, tmp_path):
    done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", mock_server().url, "--quiet")
    assert done.output == ""
    assert done.exit_code == 0


def test_faults_at_random_end_in_one_file_each(mock_server, batch, tmp_path):
    lines = [request_line(f"r{n}", str(n)) for n in range(300)]
    server = mock_server(faults=FaultPlan(rate=0.2, seed=3), retry_after_s=0.01)
    done = batch(
        "run", write_lines(tmp_path / "in.jsonl", lines), "-o", tmp_path / "out", "--endpoint", server.url
    )
    assert done.exit_code in (0, 1)
    output, errors, _ = results(tmp_path / "out")
    assert sorted(ids(output) + ids(errors)) == sorted(f"r{n}" for n in range(300))


def test_errors_are_lines_of_the_openai_format(mock_server, batch, tmp_path):
    corpus = write_lines(tmp_path / "in.jsonl", [request_line("x", "[[mock:422]]")])
    batch("run", corpus, "-o", tmp_path / "out", "--endpoint", mock_server().url)
    (line,) = read_lines(tmp_path / "out" / "errors.jsonl")
    assert set(line) == {"id", "custom_id", "response", "error"}
    assert set(line["response"]) == {"status_code", "request_id", "body"}
