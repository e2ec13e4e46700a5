"""What each client is told to send; the runs themselves are `make clients`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bros_sglang.evals.clients.__main__ import _page
from bros_sglang.evals.clients.catalogue import CLIENTS, Client, Target
from bros_sglang.evals.clients.openai_chat import WAYS
from bros_sglang.request_class import parse_tag


def _target(folder: Path) -> Target:
    return Target("http://127.0.0.1:1", "tiny", folder / "tiny", folder, Path("/venv/bin/python"))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_every_client_sends_both_classes(client: Client, tmp_path: Path) -> None:
    runs = client.runs(_target(tmp_path))
    assert sum(run.rt for run in runs) > 0
    assert sum(run.be for run in runs) > 0
    for run in runs:
        assert any("http://127.0.0.1:1" in word for word in run.argv)


def test_rows_carry_their_own_class(tmp_path: Path) -> None:
    (client,) = [client for client in CLIENTS if client.name == "bench_serving"]
    (run,) = client.runs(_target(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    classes = [parse_tag(row["custom_params"]).request_class for row in rows]
    assert (classes.count("rt"), classes.count("be")) == (run.rt, run.be)


def test_openai_is_asked_in_as_many_ways_as_are_counted(tmp_path: Path) -> None:
    (client,) = [client for client in CLIENTS if client.name == "openai"]
    (run,) = client.runs(_target(tmp_path))
    for name, count in (("rt", run.rt), ("be", run.be)):
        assert count == 2 * sum(which == name for which, _, _ in WAYS)  # streaming and not


def test_the_page_says_which_failed() -> None:
    run = {"client": "x", "version": "1", "how": "headers", "asked": {"rt": 2, "be": 0}}
    served = {"rt": 1, "be": 0}
    page = _page([{**run, "served": served, "ok": False}])
    assert "| `x` 1 | headers | 1 of 2 | 0 of 0 | failed |" in page
