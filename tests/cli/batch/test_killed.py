"""Killed and stopped runs of the real program: every id ends exactly once."""

import signal
import subprocess
import sys
import time

import orjson
import pytest

from bros_sglang.evals.batch.corpus import write_corpus
from bros_sglang.evals.batch.soak import soak
from tests.cli.batch.corpus_files import request_line, results, write_lines

PROGRAM = [sys.executable, "-m", "bros_sglang.cli.app", "batch"]


def start(*arguments):
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_lines(path, count):
    for _ in range(400):
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not reach {count} lines")


def test_killed_again_and_again_every_id_ends_exactly_once(tmp_path):
    report = soak(tmp_path, requests=4_000, kills=5)
    assert report.kills >= 4  # the last one may find nothing left to kill
    assert report.exactly_once, report
    assert report.ids_in_output + report.ids_in_errors == 4_000


@pytest.mark.slow
def test_a_longer_soak(tmp_path):
    report = soak(tmp_path, requests=100_000, kills=12)
    assert report.exactly_once, report
    assert report.peak_mib < 300


@pytest.fixture
def slow_run(mock_server, tmp_path):
    """A run of 200 requests, 4 at a time, half a second each."""
    server = mock_server(latency_s=0.5)
    corpus = write_lines(tmp_path / "in.jsonl", [request_line(f"r{n}") for n in range(200)])
    out = tmp_path / "out"
    process = start("run", corpus, "-o", out, "--endpoint", server.url, "--concurrency", 4)
    wait_for_lines(out / "output.jsonl", 4)
    yield server, out, process
    process.kill()
    process.wait()


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_once_finishes_what_is_in_flight(slow_run, name):
    server, out, process = slow_run
    process.send_signal(name)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "4 in flight are finished first" in stderr
    output, errors, record = results(out)
    assert server.counts["requests"] == len(output) == server.counts["ok"]
    assert errors == []
    assert record["state"] == "interrupted"
    assert record["sessions"][-1]["ended"]


def test_ctrl_c_twice_stops_at_once(slow_run):
    server, out, process = slow_run
    server.server.reconfigure(latency_s=60.0)
    time.sleep(0.8)  # the requests in flight now take a minute
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    output, _, record = results(out)
    assert record["state"] == "interrupted"
    assert record["counts"]["ok"] == len(output) < server.counts["requests"]


def test_ctrl_c_while_the_server_is_away(mock_server, tmp_path):
    server = mock_server(latency_s=0.05)
    corpus = write_lines(tmp_path / "in.jsonl", [request_line(f"r{n}") for n in range(500)])
    out = tmp_path / "out"
    process = start("run", corpus, "-o", out, "--endpoint", server.url, "--concurrency", 2)
    wait_for_lines(out / "output.jsonl", 2)
    server.stop()
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert results(out)[1] == []


def test_a_server_that_stays_away_stops_the_run_and_it_goes_on(mock_server, batch, tmp_path):
    server = mock_server(latency_s=0.05)
    corpus = write_lines(tmp_path / "in.jsonl", [request_line(f"r{n}") for n in range(100)])
    out = tmp_path / "out"
    command = ["run", corpus, "-o", out, "--concurrency", 2]
    process = start(*command, "--endpoint", server.url, "--give-up-after", "1s")
    wait_for_lines(out / "output.jsonl", 4)
    server.stop()
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "no server has answered for 1 s" in stderr
    _, errors, record = results(out)
    assert errors == []  # the server is what failed, not a request
    assert record["state"] == "stopped"
    again = batch(*command, "--endpoint", mock_server().url)
    assert again.exit_code == 0, again.output
    ids = [line["custom_id"] for line in results(out)[0]]
    assert sorted(ids) == sorted(f"r{n}" for n in range(100))


def test_status_of_a_killed_run(mock_server, batch, tmp_path):
    corpus, out = tmp_path / "in.jsonl", tmp_path / "out"
    write_corpus(corpus, 300)
    server = mock_server(latency_s=0.1)
    process = start("run", corpus, "-o", out, "--endpoint", server.url, "--concurrency", 4)
    wait_for_lines(out / "output.jsonl", 4)
    running = orjson.loads(batch("status", out, "--json").stdout)
    assert running["state"] == "running"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    with (out / "output.jsonl").open("ab") as file:
        file.write(b'{"id":"batch_req_5","custom_id":"requ')
    done = batch("status", out)
    assert done.exit_code == 0
    assert "killed: the same command goes on" in done.output
    server.server.reconfigure(latency_s=0.0)
    again = batch("run", corpus, "-o", out, "--endpoint", server.url)
    assert "cut 1 torn last line" in again.output
    output, _, record = results(out)
    assert len({line["custom_id"] for line in output}) == len(output) == 300
    assert [session["ended"] is None for session in record["sessions"]] == [True, False]
