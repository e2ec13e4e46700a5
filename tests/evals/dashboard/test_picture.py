"""The picture of the dashboard: every panel is drawn, with values as Grafana writes them."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path

import pytest

from bros_sglang.evals.dashboard.picture import _format, draw


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.9876, "percentunit", 1, "98.8%"),
        (0.031, "s", None, "31 ms"),
        (2.5, "s", None, "2.5 s"),
        (12.0, "reqps", None, "12 req/s"),
        (12345.0, "short", None, "12.3K"),
        (math.nan, "percentunit", 1, "no data"),
    ],
)
def test_values(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert _format(value, unit, decimals) == text


def test_the_whole_dashboard_is_drawn_also_with_gaps(tmp_path: Path) -> None:
    text = (files("bros_sglang.monitoring") / "grafana/dashboards/bros.json").read_text(encoding="utf-8")
    dashboard = json.loads(text)
    times = [1000.0 + 2 * number for number in range(30)]
    series = (times, [math.nan] * 10 + [0.5] * 20)
    data = {panel["id"]: [series] * len(panel["targets"]) for panel in dashboard["panels"]}
    phases = [(0.0, "one"), (30.0, "two")]
    path = draw(dashboard, data, tmp_path / "it.png", start_s=1000.0, phases=phases, caption="A test.")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 50_000
