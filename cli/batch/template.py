"""Prompt templates: `Summarise: {text}`, `{meta.title}` for nested fields, `{{` and `}}` for braces."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


class TemplateError(ValueError):
    """The template itself cannot be used."""


class MissingFieldError(ValueError):
    """A row lacks a field that the template names."""


@dataclass(frozen=True, slots=True)
class Template:
    """Literal text and field names in turn."""

    parts: tuple[tuple[str, str | None], ...]  # (literal, field after it or None)

    @classmethod
    def parse(cls, text: str, option: str = "--prompt") -> Template:
        """Parse a template. Raises TemplateError naming the option and what to change."""
        try:
            parsed = list(string.Formatter().parse(text))
        except ValueError as error:
            raise TemplateError(f"{option}: {error}; write {{{{ and }}}} for literal braces") from None
        parts: list[tuple[str, str | None]] = []
        for literal, field, spec, conversion in parsed:
            if field is not None and (not field or not all(field.split("."))):
                raise TemplateError(f"{option}: {{{field}}} names no field; write {{text}}")
            if spec or conversion:
                raise TemplateError(f"{option}: {{{field}}} takes no format or conversion")
            parts.append((literal, field))
        return cls(tuple(parts))

    @property
    def fields(self) -> tuple[str, ...]:
        """The field names, in order."""
        return tuple(field for _, field in self.parts if field is not None)

    def fill(self, row: Mapping[str, Any]) -> str:
        """Put a row's values in. Raises MissingFieldError for an absent or null field."""
        return "".join(
            literal if field is None else literal + _text(_lookup(row, field))
            for literal, field in self.parts
        )


def _lookup(row: Mapping[str, Any], field: str) -> Any:
    value: Any = row.get(field)
    if value is None and "." in field:
        value = row
        for name in field.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        state = "is null" if field in row else "is not in the row"
        known = ", ".join(list(map(str, row))[:12]) or "nothing"
        raise MissingFieldError(f"template field {field!r} {state}; the row has {known}")
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | dict | list):
        return orjson.dumps(value).decode()
    return str(value)
