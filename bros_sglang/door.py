"""Requests at the HTTP server: read their tag wherever it is, answer a malformed one with 400.

The OpenAI routes see body, headers and `service_tier` first (`around_handle_request`); what the request says
outside `custom_params` travels in the request's state to the tokenizer manager, which every route ends in
(`around_generate_request`), and from there in `custom_params.bros` to the scheduler.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final

from bros_sglang import launch_args
from bros_sglang.request_class import TAG_KEY, Tag, TagError, parse_tag
from bros_sglang.settings import BrosSettings
from bros_sglang.tag_sources import as_custom_params, merge, tag_of_headers, tag_of_tier, tier_served

_STATE: Final = "bros_tag"  # on a Starlette request: what headers and service_tier say


def around_create_tokenized_object(
    original: Callable[..., Any], manager: Any, obj: Any, *args: Any, **kwargs: Any
) -> Any:
    """Parse the tag; TagError is a ValueError, which SGLang's servers answer with 400 and its message.

    The offline engine's requests come here and nowhere before.
    """
    sampling_params = getattr(obj, "sampling_params", None)
    if isinstance(sampling_params, dict):
        parse_tag(sampling_params.get("custom_params"))
    return original(manager, obj, *args, **kwargs)


def around_generate_request(
    original: Callable[..., Any], manager: Any, obj: Any, request: Any = None, *args: Any, **kwargs: Any
) -> Any:
    """Put what headers and `service_tier` say into `custom_params.bros`; what it says already stays."""
    headers = getattr(request, "headers", None)
    if headers is not None and hasattr(obj, "sampling_params"):
        outer = getattr(request.state, _STATE, None)
        if outer is None:
            outer = tag_of_headers(headers)
        if outer != Tag():
            _write(obj, outer)
    return original(manager, obj, request, *args, **kwargs)


def _write(obj: Any, outer: Tag) -> None:
    many = isinstance(obj.sampling_params, list)
    written = []
    for params in obj.sampling_params if many else [obj.sampling_params]:
        custom = (params or {}).get("custom_params")
        tag = as_custom_params(merge(parse_tag(custom), outer))
        written.append({**(params or {}), "custom_params": {**(custom or {}), TAG_KEY: tag}})
    obj.sampling_params = written if many else written[0]


async def around_handle_request(
    original: Callable[..., Any], serving: Any, request: Any, raw_request: Any
) -> Any:
    """Tag a chat completion or completion, and report the `service_tier` that it was served with."""
    if not hasattr(request, "custom_params") or not hasattr(raw_request, "state"):
        return await original(serving, request, raw_request)
    settings = launch_args.settings_of(serving.tokenizer_manager.server_args)
    try:
        tier, outer = await _outer_tag(raw_request, settings)
        tag = merge(parse_tag(request.custom_params), outer)
    except TagError as error:
        return _refusal(error)
    setattr(raw_request.state, _STATE, outer)
    response = await original(serving, request, raw_request)
    if tier is None:
        return response
    return _with_tier(response, tier_served(tier, settings.class_of(tag, request.priority)))


async def around_create_responses(
    original: Callable[..., Any], serving: Any, request: Any, raw_request: Any = None
) -> Any:
    """Tag a request of `/v1/responses`."""
    if raw_request is not None and hasattr(raw_request, "state"):
        try:
            settings = launch_args.settings_of(serving.tokenizer_manager.server_args)
            _, outer = await _outer_tag(raw_request, settings)
        except TagError as error:
            return _refusal(error)
        setattr(raw_request.state, _STATE, outer)
    return await original(serving, request, raw_request)


async def _outer_tag(raw_request: Any, settings: BrosSettings) -> tuple[str | None, Tag]:
    """Return the service tier asked for, and what headers and tier say."""
    body = await raw_request.json()  # parsed by FastAPI already; SGLang's models drop the field
    tier = body.get("service_tier") if isinstance(body, dict) else None
    outer = merge(tag_of_headers(raw_request.headers), tag_of_tier(tier, settings))
    return tier, outer


def _refusal(error: TagError) -> Any:
    """Answer as OpenAI's API answers a bad parameter."""
    from fastapi.responses import JSONResponse

    body = {"message": str(error), "type": "invalid_request_error", "param": error.field, "code": None}
    return JSONResponse({"error": body}, status_code=400)


def _with_tier(response: Any, tier: str) -> Any:
    """Add `service_tier` to a response, or to every chunk of one that streams."""
    from fastapi import Response
    from fastapi.responses import StreamingResponse
    from pydantic import BaseModel

    field = f'{{"service_tier":"{tier}",'
    if isinstance(response, BaseModel):
        text = response.model_dump_json(by_alias=True)
        return Response(field + text.removeprefix("{"), media_type="application/json")
    if isinstance(response, StreamingResponse):
        response.body_iterator = _with_field(response.body_iterator, f"data: {field}".encode())
    return response


async def _with_field(chunks: AsyncIterable[Any], start: bytes) -> AsyncIterator[bytes]:
    """Insert a first field into each server-sent JSON object, errors excepted."""
    async for chunk in chunks:
        data = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
        if data.startswith(b"data: {") and not data.startswith(b'data: {"error"'):
            data = start + data[len(b"data: {") :]
        yield data
