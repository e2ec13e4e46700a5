"""From one input record to one request: OpenAI Batch lines are checked, other rows fill a template."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from bros_sglang.cli.batch.request import CHAT_URL, COMPLETIONS_URL, KNOWN_URLS
from bros_sglang.cli.batch.template import MissingFieldError, Template

if TYPE_CHECKING:
    from collections.abc import Mapping

ID_FIELD: Final = "custom_id"
_STREAMING: Final = ("stream", "stream_options")  # a batch has one answer per request


class BadRecordError(ValueError):
    """The record cannot be sent; `code` is for programs, the text says what to change."""

    def __init__(self, code: str, reason: str, custom_id: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.custom_id = custom_id


class Built(NamedTuple):
    """A checked record, before it is known whether its id is new."""

    custom_id: str
    url: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OpenAIBuilder:
    """Lines of the OpenAI Batch format: `custom_id`, `method`, `url`, `body`."""

    model_name: str | None = None  # replaces the body's model
    default_model: str | None = None  # where the body names none

    def build(self, record: Mapping[str, Any], label: str) -> Built:
        """Check a line. Raises BadRecordError."""
        del label
        custom_id = record.get(ID_FIELD)
        if not isinstance(custom_id, str) or not custom_id:
            problem = "missing" if custom_id is None else f"must be a non-empty string, not {custom_id!r}"
            raise BadRecordError("missing_custom_id", f"custom_id: {problem}")
        method, url, body = record.get("method", "POST"), record.get("url"), record.get("body")
        if method != "POST":
            raise BadRecordError("invalid_method", f'method: must be "POST", not {method!r}', custom_id)
        if url not in KNOWN_URLS:
            raise BadRecordError("invalid_url", f"url: {url!r} is not {' or '.join(KNOWN_URLS)}", custom_id)
        if not isinstance(body, dict):
            raise BadRecordError("invalid_body", "body: must be an object", custom_id)
        _check_body(url, body, custom_id)
        for name in _STREAMING:
            body.pop(name, None)
        model = self.model_name or body.get("model") or self.default_model
        if not isinstance(model, str):
            raise BadRecordError("missing_model", "body.model: missing", custom_id)
        body["model"] = model
        return Built(custom_id, url, body)


@dataclass(frozen=True, slots=True)
class TemplateBuilder:
    """Rows of any table, or text files, through a prompt template."""

    prompt: Template
    system: Template | None = None
    url: str = CHAT_URL
    model_name: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)  # into each body: max_tokens, temperature, …
    id_field: str | None = None  # None: `custom_id` where a row has it, else the row's place

    @property
    def fields(self) -> list[str]:
        """Every column that is needed (top-level names)."""
        names = [*self.prompt.fields, *(self.system.fields if self.system else ())]
        return list(dict.fromkeys(names))

    def build(self, record: Mapping[str, Any], label: str) -> Built:
        """Fill the template. `label` is the id of a row that brings none. Raises BadRecordError."""
        custom_id = self._id(record, label)
        try:
            prompt = self.prompt.fill(record)
            system = self.system.fill(record) if self.system else None
        except MissingFieldError as error:
            raise BadRecordError("missing_field", str(error), custom_id) from None
        body: dict[str, Any] = {"model": self.model_name}
        if self.url == COMPLETIONS_URL:
            body["prompt"] = prompt if system is None else f"{system}\n\n{prompt}"
        else:
            messages = [] if system is None else [{"role": "system", "content": system}]
            body["messages"] = [*messages, {"role": "user", "content": prompt}]
        body.update(self.parameters)
        return Built(custom_id, self.url, body)

    def _id(self, record: Mapping[str, Any], label: str) -> str:
        name = self.id_field or ID_FIELD
        value = record.get(name)
        if value is None or value == "":
            if self.id_field is None:
                return label
            raise BadRecordError("missing_custom_id", f"id field {name!r} is missing or empty")
        if isinstance(value, dict | list | bool):
            raise BadRecordError("missing_custom_id", f"id field {name!r} must be text or a number")
        return str(value)


Builder = OpenAIBuilder | TemplateBuilder


def prefix_key(body: Mapping[str, Any]) -> bytes:
    """Return bytes that order requests as their prompts begin: equal beginnings are neighbours."""
    return orjson.dumps(body.get("messages") or body.get("prompt"))


def take_custom_params(built: Built) -> dict[str, object] | None:
    """Remove and return the body's own `custom_params`: the tag joins them when the request is sent."""
    params = built.body.pop("custom_params", None)
    if params is not None and not isinstance(params, dict):
        raise BadRecordError("invalid_body", "body.custom_params: must be an object", built.custom_id)
    return params


def _check_body(url: str, body: Mapping[str, Any], custom_id: str) -> None:
    if url == CHAT_URL:
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise BadRecordError("invalid_body", "body.messages: must be a non-empty list", custom_id)
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise BadRecordError("invalid_body", f"body.messages[{index}]: needs a role", custom_id)
    elif not body.get("prompt"):
        raise BadRecordError("invalid_body", "body.prompt: missing or empty", custom_id)
