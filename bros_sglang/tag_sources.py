"""Where a request's tag may come from besides `custom_params.bros`: HTTP headers and OpenAI's `service_tier`.

Each source may leave fields open; for every field the first source that says something counts:

1. `custom_params.bros` in the body,
2. the headers `x-bros-class`, `x-slo-ttft-ms`, `x-slo-tpot-ms`,
3. `service_tier`,
4. SGLang's `priority` (class alone; `PriorityRule`),
5. the server's default class and targets.

Pure: mappings in, tags out. Errors name the header or field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from bros_sglang.request_class import MAX_SLO_MS, RequestClass, Tag, TagError, positive_number
from bros_sglang.settings import BrosSettings

CLASS_HEADER: Final = "x-bros-class"
TTFT_HEADER: Final = "x-slo-ttft-ms"
TPOT_HEADER: Final = "x-slo-tpot-ms"

# `scale` is what OpenAI's own clients may send for reserved capacity.
REAL_TIME_TIERS: Final = ("auto", "default", "priority", "scale")
BEST_EFFORT_TIERS: Final = ("flex", "batch")


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
    if tier == "priority":
        return Tag(RequestClass.RT, settings.tier_priority_ttft_ms, settings.tier_priority_tpot_ms)
    if isinstance(tier, str) and tier in REAL_TIME_TIERS:
        return Tag(RequestClass.RT)
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
