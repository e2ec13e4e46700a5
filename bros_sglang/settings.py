"""Every setting of bros: one field, one TOML key, one `--bros-…` flag, one line of the reference."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bros_sglang.request_class import MAX_DEADLINE_S, MAX_SLO_MS, PriorityRule, RequestClass, Tag

Milliseconds = Annotated[float, Field(gt=0, le=MAX_SLO_MS, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class SettingsError(ValueError):
    """A setting or a config file that cannot be used; the message says which key and what to change."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key  # the one that is wrong, where it is one


class ClientDefaults(BaseModel):
    """Class and targets of an API key's or a model alias's requests that say nothing themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    request_class: RequestClass | None = Field(None, alias="class")
    ttft_ms: Milliseconds | None = None
    tpot_ms: Milliseconds | None = None
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S, allow_inf_nan=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _class_alone(cls, value: Any) -> Any:
        return {"class": value} if isinstance(value, str) else value

    @property
    def tag(self) -> Tag:
        """The same as a tag."""
        return Tag(self.request_class, self.ttft_ms, self.tpot_ms, self.deadline_s)


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
    tier_priority_ttft_ms: Milliseconds | None = Field(
        None,
        description="TTFT target of requests with `service_tier` priority, ms; none: `ttft_ms`.",
    )
    tier_priority_tpot_ms: Milliseconds | None = Field(
        None,
        description="TPOT target of requests with `service_tier` priority, ms; none: `tpot_ms`.",
    )
    tier_default_ttft_ms: Milliseconds | None = Field(
        None,
        description="TTFT target of requests with `service_tier` default, ms; none: `ttft_ms`.",
    )
    tier_default_tpot_ms: Milliseconds | None = Field(
        None,
        description="TPOT target of requests with `service_tier` default, ms; none: `tpot_ms`.",
    )
    tier_auto_ttft_ms: Milliseconds | None = Field(
        None,
        description="TTFT target of requests with `service_tier` auto, ms; none: `ttft_ms`.",
    )
    tier_auto_tpot_ms: Milliseconds | None = Field(
        None,
        description="TPOT target of requests with `service_tier` auto, ms; none: `tpot_ms`.",
    )
    keys: dict[str, ClientDefaults] = Field(
        default_factory=dict,
        description="Class and targets per API key: SHA-256 of the key, and `class`, `ttft_ms`, `tpot_ms`,"
        " `deadline_s`. These keys are let in beside `--api-key`.",
    )
    models: dict[str, ClientDefaults] = Field(
        default_factory=dict,
        description="Class and targets per model alias: the `model` that a request names.",
    )
    keys_decide: bool = Field(
        False,
        description="Let no request have a better class or tighter targets than its API key gives it (a key"
        " that is not listed: `default_class`, `ttft_ms`, `tpot_ms`).",
    )
    max_queued_rt: int | None = Field(
        None,
        ge=0,
        description="Most real-time requests that may wait; more are answered with 429. None: no limit.",
    )
    max_queued_be: int | None = Field(
        None,
        ge=0,
        description="Most best-effort requests that may wait; more are answered with 429, and so is every"
        " best-effort request while real-time ones are at their limit. None: no limit.",
    )
    metrics: bool = Field(
        True, description="Show bros's own metrics where the server shows metrics (`--enable-metrics`)."
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
        0.075,
        description="Longest step, as a share of the tightest recent TTFT target: an arrival waits for it.",
    )
    late_launch: bool = Field(
        True,
        description="Plan a step just before the one before it ends, so that arrivals wait for one step and"
        " not for two (overlap scheduling).",
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
    headroom_min_share: Share | None = Field(
        None,
        description="Least share of the KV pool kept free of best-effort requests. None: 0.05, or 0 where"
        " preempted KV comes back from host memory (`--enable-hierarchical-cache`).",
    )
    headroom_max_share: Share | None = Field(
        None,
        description="Largest share of the KV pool kept free of best-effort requests. None: 0.4, or 0.05 where"
        " preempted KV comes back from host memory.",
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

    @field_validator("keys")
    @classmethod
    def _hashed(cls, keys: dict[str, ClientDefaults]) -> dict[str, ClientDefaults]:
        for number, key in enumerate(keys, 1):
            if not re.fullmatch("[0-9a-fA-F]{64}", key):
                # The name itself may be a secret, given as it is by mistake.
                raise ValueError(
                    f"entry {number} is not a SHA-256: give 64 hex digits, from printf %s KEY | sha256sum"
                )
        return {key.lower(): defaults for key, defaults in keys.items()}

    @model_validator(mode="after")
    def _check(self) -> BrosSettings:
        if self.be_priority_at_most >= self.rt_priority_at_least:
            raise ValueError("be_priority_at_most must be below rt_priority_at_least")
        least, most = self.headroom_min_share, self.headroom_max_share
        if least is not None and most is not None and least > most:
            raise ValueError("headroom_min_share must not exceed headroom_max_share")
        return self

    @property
    def priority_rule(self) -> PriorityRule:
        """Return the rule by which a stock priority names a class."""
        return PriorityRule(self.rt_priority_at_least, self.be_priority_at_most)

    def class_of(self, tag: Tag, priority: int | None) -> RequestClass:
        """Return a request's class: its tag's, or what its stock priority names, or the default."""
        return tag.request_class or self.priority_rule.class_of(priority) or self.default_class

    def max_queued(self, request_class: RequestClass) -> int | None:
        """Return how many requests of a class may wait; None: any number."""
        return self.max_queued_rt if request_class is RequestClass.RT else self.max_queued_be

    def shown(self) -> dict[str, Any]:
        """Return the settings as JSON for people: of each API key's hash the first digits alone."""
        values = self.model_dump(mode="json", by_alias=True)
        values["keys"] = {key[:8] + "…": defaults for key, defaults in values["keys"].items()}
        return values


_CLIENT_KEYS: Final = ("class", "ttft_ms", "tpot_ms", "deadline_s")

# What may change while the server runs (`/bros/config`): numbers that every decision reads anew.
CHANGEABLE: Final = (
    *("ttft_ms", "tpot_ms", "tier_priority_ttft_ms", "tier_priority_tpot_ms"),
    *("tier_default_ttft_ms", "tier_default_tpot_ms", "tier_auto_ttft_ms", "tier_auto_tpot_ms"),
    *("max_queued_rt", "max_queued_be"),
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
            raise SettingsError(f"/bros/config: unknown key {key!r}; what may change is {known}", key)
        if key not in CHANGEABLE:
            raise SettingsError(
                f"/bros/config: {key} cannot change while the server runs; restart with "
                + (flag_of(key) if has_flag(key) else "another --bros-config"),
                key,
            )
        if value is None and BrosSettings.model_fields[key].default is None:
            continue  # takes a target or a limit away
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SettingsError(f"/bros/config: {key}: expected a number, got {value!r}", key)
    return _build({**settings.model_dump(), **values}, "/bros/config")


def flag_of(field: str) -> str:
    """Return the command-line flag of a setting."""
    return "--bros-" + field.replace("_", "-")


def has_flag(field: str) -> bool:
    """Tell whether a setting has a command-line flag; tables stand in the config file alone."""
    return field not in ("keys", "models")


def _explain(error: ValidationError, source: str) -> SettingsError:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "settings"
        if item["type"] == "extra_forbidden":
            known = ", ".join(BrosSettings.model_fields if len(item["loc"]) == 1 else _CLIENT_KEYS)
            lines.append(f"{source}: unknown key {key!r}; known keys are {known}")
        else:
            got = "" if item["loc"] == ("keys",) else f" (got {item.get('input')!r})"
            lines.append(f"{source}: {key}: {item['msg']}{got}")
    first = error.errors()[0]["loc"]
    return SettingsError("\n".join(lines), str(first[0]) if first else None)


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
