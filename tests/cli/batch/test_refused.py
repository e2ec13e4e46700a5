"""Bad input, wrong servers, changed commands: one clear line each, and nothing accepted before is lost."""

import os
import subprocess
import sys

import pytest

from bros_sglang.cli.batch.run_folder import RunFolder
from tests.cli.batch.corpus_files import request_line, results, write_lines


@pytest.fixture
def corpus(tmp_path):
    return write_lines(tmp_path / "in.jsonl", [request_line(f"r{n}") for n in range(5)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "none.jsonl", "-o", "out", "--endpoint", "http://x"],
            "none.jsonl: no such file",
        ),
        (["run", "*.none", "-o", "out", "--endpoint", "http://x"], "*.none: no file matches"),
        (["run", "empty.jsonl", "-o", "out", "--endpoint", "http://x"], "empty.jsonl: empty"),
        (["run", "in.jsonl", "-o", "out"], "say where it runs"),
        (["run", "in.jsonl", "-o", "out", "--endpoint", "x:1"], "must begin with http"),
        (["run", "in.jsonl", "-o", "out", "--endpoint", "http://x", "--within", "soon"], "--within soon"),
        (["run", "in.jsonl", "-o", "out", "--endpoint", "http://x", "--max-tokens", "5"], "need --prompt"),
        (["run", "in.jsonl", "-o", "out", "--endpoint", "http://x", "--prompt", "{"], "literal braces"),
        (["run", "in.jsonl", "-o", "out", "--endpoint", "http://x", "--prompt", "{0!r}"], "no format"),
        (["run", "table.csv", "-o", "out", "--endpoint", "http://x"], "needs a template"),
        (["run", "blob.bin", "-o", "out", "--endpoint", "http://x"], "cannot tell its format"),
        (["run", "-", "in.jsonl", "-o", "out", "--endpoint", "http://x"], "cannot be combined"),
        (["run", "in.jsonl", "-o", "in.jsonl/x", "--endpoint", "http://x"], "Not a directory"),
        (["run", "in.jsonl", "-o", "out", "--endpoint", "http://127.0.0.1:9"], "is the server running?"),
        (["retry", "out"], "no run.json"),
        (["status", "out"], "no run.json"),
    ],
)
def test_refusals_say_what_to_change(batch, tmp_path, monkeypatch, corpus, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "table.csv").write_text("text\nx\n")
    (tmp_path / "blob.bin").write_bytes(b"\0\1\2\3\4")
    done = batch(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert done.output.startswith("bros batch: ")
    assert "Traceback" not in done.output


def test_a_server_that_is_no_openai_api_is_refused(mock_server, batch, corpus, tmp_path):
    server = mock_server()
    done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", server.url + "/elsewhere")
    assert done.exit_code == 2
    assert "not OpenAI-compatible: GET /v1/models answered HTTP 404" in done.output


def test_a_model_that_is_not_served_is_refused_before_anything_is_sent(mock_server, batch, corpus, tmp_path):
    server = mock_server(model="llama")
    done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", server.url)
    assert done.exit_code == 2
    assert "in.jsonl:1: model 'mock' is not served" in done.output
    assert "it serves llama" in done.output
    assert server.counts.get("requests", 0) == 0
    done = batch("run", corpus, "-o", tmp_path / "out2", "--endpoint", server.url, "--model-name", "llama")
    assert done.exit_code == 0
    assert results(tmp_path / "out2")[0][0]["response"]["body"]["model"] == "llama"


def test_a_key_is_asked_for(mock_server, batch, corpus, tmp_path, monkeypatch):
    server = mock_server(api_key="secret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.server.reconfigure(api_key="secret")
    options = ["--endpoint", server.url, "--max-failures-in-a-row", "3"]
    done = batch("run", corpus, "-o", tmp_path / "out", *options)
    assert done.exit_code == 2
    assert "give --api-key" in done.output
    done = batch("run", corpus, "-o", tmp_path / "out", *options, "--api-key", "secret")
    assert done.exit_code == 0, done.output
    assert "secret" not in (tmp_path / "out" / "run.json").read_text()


def test_changed_input_is_refused_with_a_choice(mock_server, batch, corpus, tmp_path):
    server, out = mock_server(), tmp_path / "out"
    command = ["run", corpus, "-o", out, "--endpoint", server.url]
    assert batch(*command).exit_code == 0
    write_lines(corpus, [b"{bad", *(request_line(f"r{n}") for n in range(3, 8))])
    done = batch(*command)
    assert done.exit_code == 2
    assert "the input is not what it was (changed: in.jsonl)" in done.output
    assert "--continue-anyway" in done.output
    assert "--restart" in done.output
    assert len(results(out)[0]) == 5
    done = batch(*command, "--continue-anyway")
    assert done.exit_code == 1
    output, errors, record = results(out)
    assert sorted(line["custom_id"] for line in output) == [f"r{n}" for n in range(8)]
    assert len(errors) == 1
    assert record["counts"]["no_longer_in_input"] == 3
    assert server.counts["requests"] == 8


def test_changed_settings_are_refused_and_restart_keeps_the_earlier_run(mock_server, batch, tmp_path):
    server, out = mock_server(), tmp_path / "out"
    rows = write_lines(tmp_path / "rows.jsonl", [{"text": "x"}, {"text": "y"}])
    command = ["run", rows, "-o", out, "--endpoint", server.url, "--prompt"]
    assert batch(*command, "A: {text}").exit_code == 0
    done = batch(*command, "B: {text}")
    assert done.exit_code == 2
    assert "the settings are not what they were (prompt)" in done.output
    assert batch(*command, "B: {text}", "--restart").exit_code == 0
    contents = [line["response"]["body"]["choices"][0]["message"]["content"] for line in results(out)[0]]
    assert sorted(contents) == ["echo: B: x", "echo: B: y"]
    assert len((out / "previous-1" / "output.jsonl").read_bytes().splitlines()) == 2


def test_a_second_run_on_the_folder_is_refused(mock_server, batch, corpus, tmp_path):
    folder = RunFolder(tmp_path / "out")
    folder.lock()
    done = batch("run", corpus, "-o", tmp_path / "out", "--endpoint", mock_server().url)
    assert done.exit_code == 2
    assert f"another run is writing here (pid {os.getpid()}" in done.output
    folder.close()
    assert batch("run", corpus, "-o", tmp_path / "out", "--endpoint", mock_server().url).exit_code == 0


def test_results_without_a_record_are_not_mixed(mock_server, batch, corpus, tmp_path):
    out = tmp_path / "out"
    command = ["run", corpus, "-o", out, "--endpoint", mock_server().url]
    assert batch(*command).exit_code == 0
    (out / "run.json").unlink()
    assert "holds results but no run.json" in batch(*command).output
    assert batch(*command, "--continue-anyway").exit_code == 0
    assert len(results(out)[0]) == 5
    (out / "run.json").write_text("{}")
    assert "not the record of a run" in batch(*command).output


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_without_permission_is_named(batch, tmp_path):
    locked = tmp_path / "texts" / "locked"
    locked.mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text("x")
    locked.chmod(0)
    done = batch(
        "run", tmp_path / "texts", "-o", tmp_path / "out", "--endpoint", "http://x", "--prompt", "{text}"
    )
    locked.chmod(0o755)
    assert done.exit_code == 2
    assert "Permission denied" in done.output


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from bros_sglang.cli.batch import app
app(sys.argv[2:])
"""


def test_a_full_disk_stops_cleanly_and_the_run_goes_on(mock_server, batch, tmp_path):
    """A file size limit makes the kernel refuse writes half-way, as a full disk does."""
    server, out = mock_server(), tmp_path / "out"
    corpus = write_lines(tmp_path / "in.jsonl", [request_line(f"r{n}", "x" * 50) for n in range(400)])
    command = ["run", str(corpus), "-o", str(out), "--endpoint", server.url, "--concurrency", "4"]
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, "50000", *command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 3, ended.stderr
    assert "results cannot be written: File too large" in ended.stderr
    assert "run the same command again" in ended.stderr
    raw = (out / "output.jsonl").read_bytes()
    assert 0 < len(raw) <= 50_000
    assert raw.endswith(b"}\n")
    kept = len(raw.splitlines())
    assert results(out)[2]["counts"]["ok"] == kept
    assert batch(*command).exit_code == 0
    output = results(out)[0]
    assert sorted(line["custom_id"] for line in output) == sorted(f"r{n}" for n in range(400))
