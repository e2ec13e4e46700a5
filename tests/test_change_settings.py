"""Settings that change while the server runs."""

from __future__ import annotations

from typing import Any

import pytest

from bros_sglang.settings import CHANGEABLE, BrosSettings, SettingsError, change_settings


def test_a_change_leaves_the_rest() -> None:
    before = BrosSettings(tpot_ms=30)
    after = change_settings(before, {"ttft_ms": 300, "be_floor_share": 0.1})
    assert (after.ttft_ms, after.be_floor_share, after.tpot_ms) == (300.0, 0.1, 30.0)
    assert before.ttft_ms == 500.0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ttft": 3}, "unknown key 'ttft'; what may change is ttft_ms"),
        ({"mixed_chunk": 1}, "restart with --bros-mixed-chunk"),
        ({"ttft_ms": 0}, "ttft_ms"),
        ({"ttft_ms": float("nan")}, "ttft_ms"),
        ({"ttft_ms": 1e12}, "ttft_ms"),
        ({"ttft_ms": "300"}, "expected a number"),
        ({"ttft_ms": None}, "expected a number"),
        ({"max_queued_be": -1}, "max_queued_be"),
        ({"keys": {}}, "restart with another --bros-config"),
        ({"be_floor_share": True}, "expected a number"),
        ({"be_floor_share": 2}, "be_floor_share"),
        ({"max_preemptions": 2.5}, "max_preemptions"),
        ({"headroom_min_share": 0.5, "headroom_max_share": 0.4}, "headroom_min_share"),
        ({}, "expected an object"),
        ([1], "expected an object"),
        (None, "expected an object"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(values: Any, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        change_settings(BrosSettings(), values)
    assert said in str(caught.value)


def test_everything_changeable_is_a_number() -> None:
    settings = BrosSettings()
    for key in CHANGEABLE:
        value = getattr(settings, key)
        if value is None:  # not set: a number sets it, null takes it away
            set_to = change_settings(settings, {key: 1})
            assert getattr(set_to, key) == 1
            assert change_settings(set_to, {key: None}) == settings
            continue
        assert isinstance(value, int | float)
        assert not isinstance(value, bool)
