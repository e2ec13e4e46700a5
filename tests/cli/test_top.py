"""`bros top` against the mock's status."""

import io

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from bros_sglang.cli.top import app
from bros_sglang.cli.top_view import kv_cells, render
from bros_sglang.mock_server.live_status import simulated_status
from bros_sglang.status import BrosStatus, ClassKv, ClassStatus, KvStatus, SchedulerStatus
from tests.cli.batch.conftest import mock_server  # noqa: F401 (a fixture)


def drawn(status, width=80):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    console.print(render(status, width))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("uptime_s", [0.0, 30.0, 60.0, 90.0, 100_000.0])
@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_and_says_everything(uptime_s, width):
    lines = drawn(simulated_status(uptime_s, 1e9, be_waiting=7), width)
    assert all(len(line.rstrip()) <= width for line in lines)
    text = "\n".join(lines)
    for word in (
        "running",
        "parked",
        "waiting",
        "RT in time",
        "slack",
        "KV: 65,536",
        "frontier",
        "preempted",
    ):
        assert word in text
    assert "…" not in text
    assert len(lines) == 15


def test_a_server_with_nothing_in_it():
    scheduler = SchedulerStatus(kv=KvStatus(pool_tokens=100, free_tokens=100))
    status = BrosStatus(bros_version="1", policy="fcfs", time_s=0.0, schedulers=[scheduler] * 6)
    text = "\n".join(drawn(status))
    assert "policy is off" in text
    assert "no RT in the server" in text
    assert "KV of rank 0" in text
    assert "2 more schedulers" in text


@given(
    parts=st.lists(st.integers(0, 10**6), min_size=7, max_size=7).filter(any),
    width=st.integers(30, 118),
)
def test_the_bar_is_split_as_the_pool_is(parts, width):
    be_running, be_cached, be_holes, free, rt_holes, rt_cached, rt_running = parts
    pool = sum(parts)
    scheduler = SchedulerStatus(
        be=ClassStatus(kv=ClassKv(running_tokens=be_running, cached_tokens=be_cached)),
        rt=ClassStatus(kv=ClassKv(running_tokens=rt_running, cached_tokens=rt_cached)),
        kv=KvStatus(
            pool_tokens=pool,
            free_tokens=free + be_holes + rt_holes,
            be_frontier=be_running + be_cached + be_holes,
            rt_frontier=pool - rt_running - rt_cached - rt_holes,
        ),
    )
    cells = kv_cells(scheduler, width)
    assert sum(cells) == width
    for cell, part in zip(cells, parts, strict=True):
        assert (cell > 0) == (part > 0)
        assert abs(cell - part * width / pool) <= 7


def test_once_json_and_refusals(mock_server):  # noqa: F811
    runner = CliRunner()
    done = runner.invoke(app, [mock_server(bros=True).url, "--once", "--json"])
    assert done.exit_code == 0
    read = orjson.loads(done.stdout)
    assert read["totals"]["be"]["running"] == read["schedulers"][0]["be"]["running"]
    done = runner.invoke(app, [mock_server(bros=True).url + "/v1", "--once"])
    assert done.exit_code == 0
    assert "policy bros" in done.stdout
    done = runner.invoke(app, [mock_server().url, "--once"])
    assert done.exit_code == 2
    assert "is not a bros server" in done.output
    done = runner.invoke(app, ["127.0.0.1:9", "--once"])
    assert done.exit_code == 3
    assert "is the server running?" in done.output
