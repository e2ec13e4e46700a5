from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest

from bros_sglang import launch_args
from bros_sglang.request_class import RequestClass
from bros_sglang.settings import BrosSettings, SettingsError, flag_of, has_flag, load_settings


def test_defaults_suit_a_chat_service() -> None:
    settings = load_settings()
    assert (settings.ttft_ms, settings.tpot_ms, settings.default_class) == (500.0, 50.0, RequestClass.RT)


def test_flags_override_the_file(tmp_path: Path) -> None:
    config = tmp_path / "bros.toml"
    config.write_text('[bros]\nttft_ms = 300\ndefault_class = "be"\n')
    settings = load_settings(config, {"ttft_ms": 200, "tpot_ms": None})
    assert (settings.ttft_ms, settings.tpot_ms, settings.default_class) == (200.0, 50.0, RequestClass.BE)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ttft = 300", "unknown key 'ttft'"),
        ("ttft_ms = -3", "ttft_ms"),
        ('ttft_ms = "fast"', "ttft_ms"),
        ("ttft_ms = ", "not valid TOML"),
        ("bros = 3", "unknown key 'bros'"),
        ("be_priority_at_most = 1", "be_priority_at_most must be below"),
        ("headroom_min_share = 0.5\nheadroom_max_share = 0.4", "headroom_min_share must not exceed"),
    ],
)
def test_a_bad_file_is_named_with_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    config = tmp_path / "bros.toml"
    config.write_text(text)
    with pytest.raises(SettingsError, match=reason) as caught:
        load_settings(config)
    assert str(config) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        load_settings(tmp_path / "none.toml")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedule-policy", choices=["fcfs", "lpm"], default="fcfs")
    launch_args.add_arguments(parser)
    return parser


def test_every_setting_is_a_flag() -> None:
    parser = _parser()
    options = parser._option_string_actions
    for name in BrosSettings.model_fields:
        assert (flag_of(name) in options) == has_flag(name), name
    parsed = parser.parse_args(
        ["--policy", "bros", "--bros-ttft-ms", "250", "--no-bros-mixed-chunk", "--bros-batch-sizing", "aimd"]
    )
    settings = launch_args.from_namespace(parsed)
    assert settings is not None
    assert (settings.ttft_ms, settings.mixed_chunk, settings.batch_sizing) == (250.0, False, "aimd")


def test_another_policy_has_no_settings_and_no_flags() -> None:
    assert launch_args.from_namespace(_parser().parse_args(["--policy", "lpm"])) is None
    with pytest.raises(SystemExit, match="--bros-ttft-ms needs --policy bros"):
        launch_args.from_namespace(_parser().parse_args(["--bros-ttft-ms", "250"]))


def test_a_wrong_flag_stops_with_the_reason() -> None:
    with pytest.raises(SystemExit, match="ttft_ms"):
        launch_args.from_namespace(_parser().parse_args(["--policy", "bros", "--bros-ttft-ms", "-1"]))


def test_settings_reach_other_processes() -> None:
    server_args = SimpleNamespace(schedule_policy="bros")
    launch_args.attach_settings(server_args, BrosSettings(ttft_ms=123, step_time_file=Path("/x.json")))
    assert launch_args.settings_of(pickle.loads(pickle.dumps(server_args))).ttft_ms == 123
