"""Lines of output.jsonl and errors.jsonl: the OpenAI Batch format, written and read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import orjson

if TYPE_CHECKING:
    from bros_sglang.cli.batch.problem import Rejected
    from bros_sglang.cli.batch.request import BatchRequest


class PromptDetails(msgspec.Struct, frozen=True):
    """`usage.prompt_tokens_details`."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """`usage` of an answer; servers may leave any of it out."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class Completion(msgspec.Struct, frozen=True):
    """What an answer must have to be one."""

    choices: list[msgspec.Raw]
    usage: Usage | None = None


class _Body(msgspec.Struct, frozen=True):
    usage: Usage | None = None


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    source: str | None = None
    attempts: int | None = None


class _OutputResponse(msgspec.Struct, frozen=True):
    body: _Body


class _OutputLine(msgspec.Struct, frozen=True):
    custom_id: str
    response: _OutputResponse


class ErrorLine(msgspec.Struct, frozen=True):
    """What is read back of a line of errors.jsonl."""

    custom_id: str | None
    error: _Error


_completion = msgspec.json.Decoder(Completion)
_output = msgspec.json.Decoder(_OutputLine)
_error = msgspec.json.Decoder(ErrorLine)


def parse_completion(body: bytes) -> Completion:
    """Read an answer. Raises msgspec.DecodeError for anything that is not a completion."""
    completion = _completion.decode(body)
    if not completion.choices:
        raise msgspec.ValidationError("the answer has no choices")
    return completion


def parse_output_line(line: bytes) -> tuple[str, Usage]:
    """Return id and usage of a line of output.jsonl. Raises msgspec.DecodeError."""
    parsed = _output.decode(line)
    return parsed.custom_id, parsed.response.body.usage or Usage()


def parse_error_line(line: bytes) -> ErrorLine:
    """Read a line of errors.jsonl. Raises msgspec.DecodeError."""
    return _error.decode(line)


def output_line(request: BatchRequest, status: int, request_id: str, body: bytes) -> bytes:
    """Build the line of an answer; `body` is JSON and goes in as it came."""
    if b"\n" in body or b"\r" in body:  # pretty-printed: a record must stay on one line
        body = orjson.dumps(orjson.loads(body))
    head = b'{"id":"batch_req_%x","custom_id":%b,' % (request.place, orjson.dumps(request.custom_id))
    answer = b'"status_code":%d,"request_id":%b,"body":%b' % (status, orjson.dumps(request_id), body)
    return b'%b"response":{%b},"error":null}\n' % (head, answer)


def failure_line(
    request: BatchRequest, status: int, request_id: str, body: bytes, code: str, message: str
) -> bytes:
    """Build the line of a request that the server refused or that kept failing (status 0: no answer)."""
    response: dict[str, Any] | None = None
    if status:
        response = {"status_code": status, "request_id": request_id, "body": _json_or_text(body)}
    attempts = request.attempts + request.pushbacks
    error = {"code": code, "message": message, "source": request.source, "attempts": attempts}
    return _dump(request.place, request.custom_id, response, error)


def rejected_line(rejected: Rejected) -> bytes:
    """Build the line of an input record that was never sent."""
    error = {"code": rejected.code, "message": rejected.message, "source": rejected.source, "attempts": 0}
    return _dump(rejected.place, rejected.custom_id, None, error)


def _dump(place: int, custom_id: str | None, response: dict[str, Any] | None, error: dict[str, Any]) -> bytes:
    record = {"id": f"batch_req_{place:x}", "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(record) + b"\n"


def _json_or_text(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:2000].decode("utf-8", "replace")
