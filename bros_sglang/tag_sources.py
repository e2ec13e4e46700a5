"""Where a request's tag may come from besides `custom_params.bros`, and which source counts.

Each source may leave fields open; for every field the first source that says something counts:

1. `custom_params.bros` in the body,
2. the headers `x-bros-class`, `x-slo-ttft-ms`, `x-slo-tpot-ms`,
3. `service_tier`,
4. SGLang's `priority` (class alone; `PriorityRule`),
5. what the config says of the model alias that the request names,
6. what the config says of its API key,
7. the server's default class and targets.

With `keys_decide` nothing that a client says (1 to 5) makes its request better than 6 and 7 would.

Pure: mappings in, tags out. Errors name the header or field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

from bros_sglang.api_keys import key_hash
from bros_sglang.request_class import MAX_SLO_MS, RequestClass, Tag, TagError, positive_number
from bros_sglang.settings import BrosSettings

CLASS_HEADER: Final = "x-bros-class"
TTFT_HEADER: Final = "x-slo-ttft-ms"
TPOT_HEADER: Final = "x-slo-tpot-ms"

# `scale` is what OpenAI's own clients may send for reserved capacity.
REAL_TIME_TIERS: Final = ("auto", "default", "priority", "scale")
BEST_EFFORT_TIERS: Final = ("flex", "batch")


class Sources(NamedTuple):
    """What is known of an HTTP request besides its body's tag and `priority`."""

    said: Tag = Tag()  # by its headers, then by its service tier
    model: Tag = Tag()  # by the config, of the model that it names
    key: Tag = Tag()  # by the config, of its API key

    def tag(self, body: Tag, priority: int | None, settings: BrosSettings) -> Tag:
        """Return the tag to serve the request with; fields that nobody says stay open."""
        by_priority = Tag(settings.priority_rule.class_of(priority))
        asked = merge(body, self.said, by_priority, self.model, self.key)
        return _granted(asked, self.key, settings) if settings.keys_decide else asked


def _granted(asked: Tag, key: Tag, settings: BrosSettings) -> Tag:
    """Return what is asked for, but nothing better than what the key gives."""
    if (key.request_class or settings.default_class) is RequestClass.BE:
        return replace(asked, request_class=RequestClass.BE)
    least_ttft_ms = key.ttft_ms or settings.ttft_ms
    least_tpot_ms = key.tpot_ms or settings.tpot_ms
    return Tag(
        asked.request_class or RequestClass.RT,
        max(asked.ttft_ms or least_ttft_ms, least_ttft_ms),
        max(asked.tpot_ms or least_tpot_ms, least_tpot_ms),
        asked.deadline_s,
    )


def sources_of(headers: Mapping[str, str], tier: Any, model: Any, settings: BrosSettings) -> Sources:
    """Collect what headers, `service_tier` and the config say; raises TagError naming what is wrong."""
    said = merge(tag_of_headers(headers), tag_of_tier(tier, settings))
    alias = settings.models.get(model) if isinstance(model, str) else None
    key = settings.keys.get(key_hash(headers.get("authorization"))) if settings.keys else None
    return Sources(said, Tag() if alias is None else alias.tag, Tag() if key is None else key.tag)


def merge(*tags: Tag) -> Tag:
    """Take each field from the first tag that has it."""
    values = {}
    for field in fields(Tag):
        said = (getattr(tag, field.name) for tag in tags)
        values[field.name] = next((value for value in said if value is not None), None)
    return Tag(**values)


def tag_of_headers(headers: Mapping[str, str]) -> Tag:
    """Read the headers (a case-insensitive mapping); raises TagError naming the one that is wrong."""
    request_class = None
    said = headers.get(CLASS_HEADER)
    if said is not None:
        try:
            request_class = RequestClass(said.strip().lower())
        except ValueError:
            raise TagError(f'{CLASS_HEADER}: must be "rt" or "be", got {said!r}') from None
    return Tag(
        request_class,
        _milliseconds(headers.get(TTFT_HEADER), TTFT_HEADER),
        _milliseconds(headers.get(TPOT_HEADER), TPOT_HEADER),
    )


def _milliseconds(text: str | None, header: str) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        raise TagError(f"{header}: expected a number of ms, got {text!r}") from None
    return positive_number(number, header, MAX_SLO_MS, "ms")


def tag_of_tier(tier: Any, settings: BrosSettings) -> Tag:
    """Read a `service_tier`; None says nothing. Raises TagError for one that nobody knows."""
    if tier is None:
        return Tag()
    if isinstance(tier, str) and tier in REAL_TIME_TIERS:
        ttft_ms = getattr(settings, f"tier_{tier}_ttft_ms", None)
        return Tag(RequestClass.RT, ttft_ms, getattr(settings, f"tier_{tier}_tpot_ms", None))
    if isinstance(tier, str) and tier in BEST_EFFORT_TIERS:
        return Tag(RequestClass.BE)
    known = ", ".join((*REAL_TIME_TIERS, *BEST_EFFORT_TIERS))
    raise TagError(f"service_tier: must be one of {known}, got {tier!r}")


def tier_served(asked: str, served: RequestClass) -> str:
    """Return the tier to report: the one asked for, unless another source decided otherwise.

    OpenAI reports the tier that was used, so `auto` becomes `default`.
    """
    if served is RequestClass.BE:
        return asked if asked in BEST_EFFORT_TIERS else "flex"
    return asked if asked in REAL_TIME_TIERS and asked != "auto" else "default"


def as_custom_params(tag: Tag) -> dict[str, Any]:
    """Return a tag as the value of `custom_params.bros`."""
    values: dict[str, Any] = {
        "class": None if tag.request_class is None else tag.request_class.value,
        "ttft_ms": tag.ttft_ms,
        "tpot_ms": tag.tpot_ms,
        "deadline_s": tag.deadline_s,
    }
    return {name: value for name, value in values.items() if value is not None}
