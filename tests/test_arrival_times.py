"""Arrival times on their way from the HTTP server to every rank."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sglang.srt.observability import req_time_stats
from sglang.srt.observability.req_time_stats import APIServerReqTimeStats

from bros_sglang import arrival_times


def test_every_rank_gets_the_very_same_times(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = APIServerReqTimeStats.__getstate__
    monkeypatch.setattr(
        APIServerReqTimeStats, "__getstate__", lambda self: arrival_times.after_getstate(stock(self), self)
    )
    sent = APIServerReqTimeStats(created_time=12.125, api_server_dispatch_time=12.25)
    seen = []
    for calibration_s in (5.0, 7.5):  # a clock calibration of each process's own
        monkeypatch.setattr(req_time_stats, "global_diff_realtime_monotonic", calibration_s)
        state = sent.__getstate__()
        received = APIServerReqTimeStats.__new__(APIServerReqTimeStats)
        received.__setstate__(state)
        seen.append(arrival_times.of(SimpleNamespace(time_stats=received)))
        sent = received  # the first rank sends on what it received
    assert seen == [(12.125, 12.25)] * 2


def test_without_them_nothing_is_known() -> None:
    assert arrival_times.of(SimpleNamespace(time_stats=None)) == (0.0, 0.0)
    assert arrival_times.of(SimpleNamespace(time_stats=APIServerReqTimeStats())) == (0.0, 0.0)
