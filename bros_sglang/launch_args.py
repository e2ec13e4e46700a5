"""Command-line flags and `ServerArgs`: how a server learns that it runs bros, and with which settings.

The settings ride on SGLang's `ServerArgs` object as an underscore attribute (SGLang allows such bookkeeping
and ships it to every process, `sglang/srt/server_args.py:ServerArgs.__reduce__`), so no environment variable
and no second channel is needed.
"""

from __future__ import annotations

import argparse
import os
import types
import typing
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from bros_sglang.settings import BrosSettings, SettingsError, flag_of, has_flag, load_settings

POLICY = "bros"
CONFIG_ENV = "BROS_CONFIG"
_ATTRIBUTE = "_bros_settings"
_DEST = "bros_setting_"


def is_bros(server_args: Any) -> bool:
    """Tell whether these server arguments choose the bros policy."""
    return getattr(server_args, "schedule_policy", None) == POLICY


def settings_of(server_args: Any) -> BrosSettings:
    """Return the settings that ride on the server arguments (defaults and `BROS_CONFIG` where none do)."""
    data = getattr(server_args, _ATTRIBUTE, None)
    if data is not None:
        return _parsed(data)
    config = os.environ.get(CONFIG_ENV)
    return load_settings(Path(config) if config else None)


_last: tuple[Any, BrosSettings] | None = None  # what `_parsed` last parsed, and the settings


def _parsed(data: dict[str, Any]) -> BrosSettings:
    # Asked for at every request; `attach_settings` never changes what it attached.
    global _last
    if _last is None or _last[0] is not data:
        _last = data, BrosSettings.model_validate(data)
    return _last[1]


def attach_settings(server_args: Any, settings: BrosSettings) -> None:
    """Put the settings on the server arguments; every process that receives them has the settings too."""
    setattr(server_args, _ATTRIBUTE, settings.model_dump(mode="json"))


def _plain_type(field: FieldInfo) -> tuple[Any, tuple[str, ...] | None]:
    """Return the argparse type and choices of a setting."""
    annotation: Any = field.annotation
    if typing.get_origin(annotation) is typing.Literal:
        return str, tuple(str(choice) for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(arg for arg in typing.get_args(annotation) if arg is not type(None))
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if isinstance(annotation, type) and issubclass(annotation, str):
        return str, tuple(str(member) for member in getattr(annotation, "__members__", {}).values()) or None
    return annotation, None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `bros` to the policies, `--policy` as another name of `--schedule-policy`, and the bros flags."""
    policy = parser._option_string_actions["--schedule-policy"]
    if policy.choices is not None and POLICY not in policy.choices:
        policy.choices = [*policy.choices, POLICY]
    if "--policy" not in parser._option_string_actions:
        policy.option_strings = [*policy.option_strings, "--policy"]
        parser._option_string_actions["--policy"] = policy
    group = parser.add_argument_group(
        "bros", "The bros policy (--policy bros): real-time and best-effort together."
    )
    group.add_argument(
        "--bros-config",
        type=Path,
        default=None,
        metavar="FILE",
        help="TOML file with settings of the bros policy.",
    )
    for name, field in BrosSettings.model_fields.items():
        if not has_flag(name):
            continue
        kind, choices = _plain_type(field)
        shown = f"{field.description} Default: {field.default}."
        if kind is bool:
            group.add_argument(
                flag_of(name),
                dest=_DEST + name,
                action=argparse.BooleanOptionalAction,
                default=None,
                help=shown.replace("%", "%%"),
            )
            continue
        group.add_argument(
            flag_of(name),
            dest=_DEST + name,
            type=kind,
            choices=choices,
            default=None,
            metavar=None if choices else name.upper(),
            help=shown.replace("%", "%%"),
        )


def from_namespace(namespace: argparse.Namespace) -> BrosSettings | None:
    """Return the settings that a parsed command line gives, or None where another policy is chosen.

    Exits with the reason where a setting is wrong, or where bros flags are given without the bros policy:
    they would be ignored in silence.
    """
    flags = {
        key.removeprefix(_DEST): value
        for key, value in vars(namespace).items()
        if key.startswith(_DEST) and value is not None
    }
    config = getattr(namespace, "bros_config", None)
    if getattr(namespace, "schedule_policy", None) != POLICY:
        if flags or config is not None:
            given = "--bros-config" if config is not None else flag_of(next(iter(flags)))
            raise SystemExit(f"error: {given} needs --policy bros; remove it or choose that policy")
        return None
    if config is None and os.environ.get(CONFIG_ENV):
        config = Path(os.environ[CONFIG_ENV])
    try:
        return load_settings(config, flags)
    except SettingsError as error:
        raise SystemExit(f"error: {error}") from None
