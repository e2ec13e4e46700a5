"""Request classes and the tag that a request may carry.

A tag is `custom_params: {"bros": {"class": "rt"|"be", "ttft_ms": …, "tpot_ms": …, "deadline_s": …}}`; stock
`priority` names a class too. Parsing is pure; the error names the field, so that it can be answered with 400.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

TAG_KEY: Final = "bros"
MAX_SLO_MS: Final = 3_600_000.0
MAX_DEADLINE_S: Final = 30 * 86_400.0


class RequestClass(StrEnum):
    """Real-time (every token has a deadline) or best-effort (only the pile has)."""

    RT = "rt"
    BE = "be"


class TagError(ValueError):
    """A malformed tag; the message begins with the field and says what to change."""

    @property
    def field(self) -> str:
        """The field or header that is wrong."""
        return str(self).partition(":")[0]


@dataclass(frozen=True, slots=True)
class Tag:
    """What one request asks for; None leaves the server's default."""

    request_class: RequestClass | None = None
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    deadline_s: float | None = None  # best-effort completion window, seconds from arrival


@dataclass(frozen=True, slots=True)
class PriorityRule:
    """How SGLang's integer `priority` names a class; between the two bounds is the default class."""

    rt_at_least: int = 1
    be_at_most: int = -1

    def class_of(self, priority: int | None) -> RequestClass | None:
        """Return the class that a priority names, or None where it names none (unset included)."""
        if priority is None:
            return None
        if priority >= self.rt_at_least:
            return RequestClass.RT
        # SGLang marks an unset priority with -2**63 when priority scheduling is on.
        if -(2**63) < priority <= self.be_at_most:
            return RequestClass.BE
        return None


_FIELDS: Final = ("class", "ttft_ms", "tpot_ms", "deadline_s")


def positive_number(value: Any, field: str, largest: float, unit: str) -> float:
    """Return a number above 0 and at most `largest`; raises TagError naming `field`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TagError(f"{field}: expected a number of {unit}, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or not 0 < number <= largest:
        raise TagError(f"{field}: must be above 0 and at most {largest:g} {unit}, got {value!r}")
    return number


def _number(raw: Mapping[str, Any], field: str, largest: float, unit: str) -> float | None:
    value = raw.get(field)
    return None if value is None else positive_number(value, f"custom_params.bros.{field}", largest, unit)


def parse_tag(custom_params: Any) -> Tag:
    """Read the tag from a request's `custom_params`; nothing there gives an empty Tag.

    Raises TagError naming the field that is wrong. `custom_params` of other consumers are left alone.
    """
    if not isinstance(custom_params, Mapping) or custom_params.get(TAG_KEY) is None:
        return Tag()
    raw = custom_params[TAG_KEY]
    if not isinstance(raw, Mapping):
        raise TagError(f'custom_params.bros: expected an object such as {{"class": "be"}}, got {raw!r}')
    unknown = [key for key in raw if key not in _FIELDS]
    if unknown:
        raise TagError(
            f"custom_params.bros.{unknown[0]}: unknown field; known fields are {', '.join(_FIELDS)}"
        )
    request_class = None
    if raw.get("class") is not None:
        try:
            request_class = RequestClass(raw["class"])
        except ValueError:
            raise TagError(f'custom_params.bros.class: must be "rt" or "be", got {raw["class"]!r}') from None
    return Tag(
        request_class,
        _number(raw, "ttft_ms", MAX_SLO_MS, "ms"),
        _number(raw, "tpot_ms", MAX_SLO_MS, "ms"),
        _number(raw, "deadline_s", MAX_DEADLINE_S, "s"),
    )


def class_of(req: Any) -> RequestClass:
    """Return the class of a scheduler request; one that bros has not seen is real-time."""
    state = getattr(req, "bros", None)
    return RequestClass.RT if state is None else state.request_class
