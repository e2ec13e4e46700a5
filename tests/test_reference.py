"""The generated pages are what the code says today."""

from __future__ import annotations

from pathlib import Path

import pytest

from bros_sglang.reference import PAGES, metrics
from bros_sglang.settings import BrosSettings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make reference`"


def test_every_setting_and_metric_has_a_line() -> None:
    settings = (DOCS / "settings.md").read_text(encoding="utf-8")
    for name in BrosSettings.model_fields:
        assert settings.count(f"| `{name}` |") == 1
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    found = metrics()
    assert len(found) > 30
    for metric in found:
        assert page.count(f"| `{metric.name}` | {metric.kind} |") == 1
        assert metric.text


def test_describing_metrics_leaves_none_behind() -> None:
    assert metrics() == metrics()
