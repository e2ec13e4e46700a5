"""Every setting of bros: one field, one TOML key, one `--bros-…` flag, one line of the reference."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bros_sglang.request_class import MAX_SLO_MS, PriorityRule, RequestClass, Tag

Milliseconds = Annotated[float, Field(gt=0, le=MAX_SLO_MS, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class SettingsError(ValueError):
    """A setting or a config file that cannot be used; the message says which key and what to change."""


class BrosSettings(BaseModel):
    """Settings of the bros policy. The defaults suit a chat service with batch work beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ttft_ms: Milliseconds = Field(500.0, description="TTFT target of real-time requests that name none, ms.")
    tpot_ms: Milliseconds = Field(50.0, description="TPOT target of real-time requests that name none, ms.")
    default_class: RequestClass = Field(
        RequestClass.RT,
        description="Class of a request that carries neither a tag nor a priority that names one.",
    )
    rt_priority_at_least: int = Field(
        1, description="A stock `priority` of at least this makes a request real-time."
    )
    be_priority_at_most: int = Field(
        -1, description="A stock `priority` of at most this makes a request best-effort."
    )
    tier_priority_ttft_ms: float | None = Field(
        None,
        gt=0,
        le=MAX_SLO_MS,
        allow_inf_nan=False,
        description="TTFT target of requests with `service_tier` priority, ms; none: `ttft_ms`.",
    )
    tier_priority_tpot_ms: float | None = Field(
        None,
        gt=0,
        le=MAX_SLO_MS,
        allow_inf_nan=False,
        description="TPOT target of requests with `service_tier` priority, ms; none: `tpot_ms`.",
    )
    deadline_base: Literal["actual", "due"] = Field(
        "actual",
        description="Count token deadlines from the first token's actual time, or from when it was due.",
    )
    target_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95,
        description="Aim at this share of every target; the rest is for what is not predicted.",
    )
    arrival_guard: Share = Field(
        0.15,
        description="Longest step, as a share of the tightest recent TTFT target: an arrival waits for it.",
    )
    decode_lead: Annotated[float, Field(ge=0, le=10)] = Field(
        0.5,
        description="How far ahead of their deadlines running real-time requests are kept, as a share of the"
        " tightest recent TTFT target: room in time for real-time prefill.",
    )
    margin_bands: float = Field(
        2.0,
        ge=0,
        le=10,
        description="Raise predicted step times by this many mean relative prediction errors.",
    )
    fixed_margin_ms: float = Field(
        1.0, ge=0, le=1000, description="Time kept free before every deadline, ms."
    )
    be_floor_share: Share = Field(
        0.02,
        description="Share of engine time that best-effort work gets however much real-time load there is.",
    )
    batch_sizing: Literal["slack", "aimd", "fixed"] = Field(
        "slack",
        description="Size steps by predicted time and slack; `aimd` (the paper's cap) and `fixed` compare.",
    )
    mixed_chunk: bool = Field(
        True, description="Let decode rows ride in prefill steps (SGLang's mixed chunks)."
    )
    park_decodes: bool = Field(
        True,
        description="Keep best-effort decode rows out of a step that would miss a deadline with them.",
    )
    min_be_chunk_tokens: int = Field(
        32, ge=1, description="Smallest best-effort prefill chunk worth starting."
    )
    min_rt_chunk_tokens: int = Field(
        64, ge=1, description="Real-time prefill moves at least so many tokens a step."
    )
    keep_preempted: bool = Field(
        True, description="Keep a preempted request's KV until it is needed; off drops it, as stock does."
    )
    max_preemptions: int = Field(
        8, ge=1, description="A best-effort request preempted so often is chosen last from then on."
    )
    headroom_min_share: Share = Field(
        0.05, description="Least share of the KV pool kept free of best-effort requests."
    )
    headroom_max_share: Share = Field(
        0.40, description="Largest share of the KV pool kept free of best-effort requests."
    )
    room_patience: Share = Field(
        0.5,
        description="A real-time request that lacks KV room lets best-effort requests run on while no more"
        " than this share of its TTFT target is used up or needed; then it takes room from them.",
    )
    rt_cache_max_share: Share = Field(
        0.60,
        description="Largest share of the KV pool in which real-time prefix cache is kept.",
    )
    lost_patience: float = Field(
        4.0,
        ge=0,
        description="A late real-time request waits at most so many TTFT targets behind savable ones.",
    )
    step_time_file: Path | None = Field(
        None, description="JSON file of a fitted step-time model to start from (`bros eval profile`)."
    )
    decision_log: Path | None = Field(
        None,
        description="Append every scheduling decision to this file, one JSON object a line.",
    )
    decision_records: int = Field(
        4096, ge=1, description="Scheduling decisions kept for `bros eval explain`."
    )

    @model_validator(mode="after")
    def _check(self) -> BrosSettings:
        if self.be_priority_at_most >= self.rt_priority_at_least:
            raise ValueError("be_priority_at_most must be below rt_priority_at_least")
        if self.headroom_min_share > self.headroom_max_share:
            raise ValueError("headroom_min_share must not exceed headroom_max_share")
        return self

    @property
    def priority_rule(self) -> PriorityRule:
        """Return the rule by which a stock priority names a class."""
        return PriorityRule(self.rt_priority_at_least, self.be_priority_at_most)

    def class_of(self, tag: Tag, priority: int | None) -> RequestClass:
        """Return a request's class: its tag's, or what its stock priority names, or the default."""
        return tag.request_class or self.priority_rule.class_of(priority) or self.default_class


# What may change while the server runs (`/bros/config`): numbers that every decision reads anew.
CHANGEABLE: Final = (
    *("ttft_ms", "tpot_ms", "tier_priority_ttft_ms", "tier_priority_tpot_ms"),
    *("arrival_guard", "decode_lead", "margin_bands", "fixed_margin_ms", "be_floor_share"),
    *("headroom_min_share", "headroom_max_share", "rt_cache_max_share", "max_preemptions"),
    "room_patience",
)


def change_settings(settings: BrosSettings, values: Any) -> BrosSettings:
    """Return settings with some values changed; raises SettingsError naming the key and what to change."""
    if not isinstance(values, Mapping) or not values:
        raise SettingsError('/bros/config: expected an object of settings such as {"ttft_ms": 300}')
    for key, value in values.items():
        if key not in BrosSettings.model_fields:
            known = ", ".join(CHANGEABLE)
            raise SettingsError(f"/bros/config: unknown key {key!r}; what may change is {known}")
        if key not in CHANGEABLE:
            raise SettingsError(
                f"/bros/config: {key} cannot change while the server runs; restart with {flag_of(key)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"/bros/config: {key}: expected a number, got {value!r}")
    return _build({**settings.model_dump(), **values}, "/bros/config")


def flag_of(field: str) -> str:
    """Return the command-line flag of a setting."""
    return "--bros-" + field.replace("_", "-")


def _explain(error: ValidationError, source: str) -> SettingsError:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "settings"
        if item["type"] == "extra_forbidden":
            known = ", ".join(BrosSettings.model_fields)
            lines.append(f"{source}: unknown key {key!r}; known keys are {known}")
        else:
            lines.append(f"{source}: {key}: {item['msg']} (got {item.get('input')!r})")
    return SettingsError("\n".join(lines))


def load_settings(config_file: Path | None = None, flags: dict[str, Any] | None = None) -> BrosSettings:
    """Read settings from a TOML file, overridden by flags; raises SettingsError with the key and the reason.

    The file holds the keys at top level or in a `[bros]` table. Flags that are None were not given.
    """
    values: dict[str, Any] = {}
    if config_file is not None:
        try:
            data = tomllib.loads(Path(config_file).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SettingsError(f"--bros-config {config_file}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--bros-config {config_file}: cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"--bros-config {config_file}: not valid TOML: {error}") from error
        values = (
            dict(data.get("bros", data))
            if isinstance(data.get("bros", data), dict)
            else {"bros": data["bros"]}
        )
        _build(values, str(config_file))  # so that a bad key is reported with the file's name
    values.update({key: value for key, value in (flags or {}).items() if value is not None})
    return _build(values, "bros settings")


def _build(values: dict[str, Any], source: str) -> BrosSettings:
    try:
        return BrosSettings.model_validate(values)
    except ValidationError as error:
        raise _explain(error, source) from None
