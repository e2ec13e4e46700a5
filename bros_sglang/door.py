"""Requests at the HTTP server: read their tag wherever it is, let them in or refuse them.

The OpenAI routes see body, headers and `service_tier` first (`around_handle_request`); what the request says
outside `custom_params` travels in the request's state to the tokenizer manager, which every route ends in
(`around_generate_request`), and from there in `custom_params.bros` to the scheduler. There the queue limits
are kept, too. Whatever is refused is answered as OpenAI's API answers (`held_answers.py`).
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

from bros_sglang import launch_args, responses_batch_tier, seams
from bros_sglang.held_answers import HoldAnswers, answer_of
from bros_sglang.openai_errors import OpenAIError
from bros_sglang.queue_limits import QueueLimits, RefusedError
from bros_sglang.request_class import TAG_KEY, RequestClass, Tag, TagError, parse_tag
from bros_sglang.settings import BrosSettings
from bros_sglang.tag_sources import Sources, as_custom_params, sources_of, tier_served
from bros_sglang.tracing import tell_root_span

_SOURCES: Final = "bros_sources"  # on a Starlette request: what it says outside its body's tag
_INSIDE: Final = "bros_inside"  # on a Starlette request: it was let in


def open_door(manager: Any) -> None:
    """Put the limits and the middleware in place, before the HTTP server begins to serve."""
    from sglang.srt.entrypoints.http_server import app
    from starlette.middleware import Middleware

    limits = QueueLimits(lambda: _waiting(manager), time.monotonic)
    if manager.server_args.enable_metrics and launch_args.settings_of(manager.server_args).metrics:
        limits.on_refused = _refusal_counter(manager.served_model_name)
    manager.bros_limits = limits
    # Innermost, so that what others add to an answer (CORS, metrics) is added to a refusal, too.
    app.user_middleware.append(Middleware(HoldAnswers))
    app.user_middleware.append(Middleware(responses_batch_tier.KnowBatchTier))


def _refusal_counter(model_name: str) -> Callable[[RequestClass, int], None]:
    # Imported here: prometheus_client looks for PROMETHEUS_MULTIPROC_DIR when it is imported.
    from prometheus_client import Counter

    text = "Requests refused with 429 because too many of their class wait."
    counter = Counter("sglang:bros_num_refused_reqs_total", text, labelnames=["model_name", "request_class"])
    children = {which: counter.labels(model_name, which.value) for which in RequestClass}  # seen at 0, too
    return lambda request_class, count: children[request_class].inc(count)


async def _waiting(manager: Any) -> tuple[int, int]:
    """Ask the scheduler how many real-time and best-effort requests wait."""
    from sglang.srt.managers.io_struct import GetInternalStateReq

    manager.auto_create_handle_loop()
    answers = await manager.get_internal_state_communicator(GetInternalStateReq(rid=seams.QUEUED_RID))
    return (
        sum(answer.internal_state["rt"] for answer in answers),
        sum(answer.internal_state["be"] for answer in answers),
    )


def around_create_tokenized_object(
    original: Callable[..., Any], manager: Any, obj: Any, *args: Any, **kwargs: Any
) -> Any:
    """Parse the tag; TagError is a ValueError, which SGLang's servers answer with 400 and its message.

    The offline engine's requests come here and nowhere before.
    """
    sampling_params = getattr(obj, "sampling_params", None)
    if isinstance(sampling_params, dict):
        tag = parse_tag(sampling_params.get("custom_params"))
        state = manager.rid_to_state.get(obj.rid)
        if state is not None:
            settings = launch_args.settings_of(manager.server_args)
            tell_root_span(state.time_stats, tag, obj.priority, settings)
    return original(manager, obj, *args, **kwargs)


def around_generate_request(
    original: Callable[..., Any], manager: Any, obj: Any, request: Any = None, *args: Any, **kwargs: Any
) -> Any:
    """Put what the request and the config say into `custom_params.bros`, and keep the queue limits."""
    if not hasattr(request, "headers") or not hasattr(obj, "sampling_params"):
        return original(manager, obj, request, *args, **kwargs)
    return _generate(original(manager, obj, request, *args, **kwargs), manager, obj, request)


async def _generate(answers: Any, manager: Any, obj: Any, request: Any) -> AsyncIterator[Any]:
    """Yield the answers to a request that is let in."""
    settings = launch_args.settings_of(manager.server_args)
    limits: QueueLimits | None = getattr(manager, "bros_limits", None)
    answer = answer_of(request)
    entered: dict[RequestClass, int] = {}
    async with aclosing(answers):
        try:
            try:
                classes = _tag(obj, request, settings)
                if limits is not None and not _is_exempt(obj, request):
                    for request_class, count in classes.items():
                        await limits.enter(request_class, count, settings)
                        entered[request_class] = count
                    setattr(request.state, _INSIDE, True)
            except (TagError, RefusedError) as error:
                if answer is not None:
                    answer.refuse(_openai_error(error))
                raise
            if answer is not None:
                await answer.release()
            async for item in answers:
                yield item
        finally:
            for request_class, count in entered.items():
                limits.leave(request_class, count)  # type: ignore[union-attr] # entered by it


def _is_exempt(obj: Any, request: Any) -> bool:
    """Say whether nobody is kept out here: health checks, and the next step of a request that is inside."""
    from sglang.srt.constants import HEALTH_CHECK_RID_PREFIX

    rid = obj.rid
    health_check = isinstance(rid, str) and rid.startswith(HEALTH_CHECK_RID_PREFIX)
    return health_check or getattr(request.state, _INSIDE, False)


def _tag(obj: Any, request: Any, settings: BrosSettings) -> dict[RequestClass, int]:
    """Write each prompt's tag into its parameters; return how many answers of each class are asked for."""
    sources = getattr(request.state, _SOURCES, None)
    if sources is None:  # not by way of an OpenAI route
        sources = sources_of(request.headers, None, None, settings)
    many = isinstance(obj.sampling_params, list)
    written: list[Any] = []
    classes: dict[RequestClass, int] = {}
    for params in obj.sampling_params if many else [obj.sampling_params]:
        custom = (params or {}).get("custom_params")
        tag = sources.tag(parse_tag(custom), obj.priority, settings)
        if tag == Tag():
            written.append(params)
        else:
            custom = {**(custom or {}), TAG_KEY: as_custom_params(tag)}
            written.append({**(params or {}), "custom_params": custom})
        request_class = settings.class_of(tag, obj.priority)
        prompts = 1 if many else _prompts(obj)
        classes[request_class] = classes.get(request_class, 0) + prompts * ((params or {}).get("n") or 1)
    obj.sampling_params = written if many else written[0]
    return classes


def _prompts(obj: Any) -> int:
    """Count the prompts of a request as it came: texts, token ids or embeddings, one or a list of them."""
    if isinstance(obj.text, list):
        return len(obj.text)
    if isinstance(obj.input_ids, list):
        return len(obj.input_ids) if obj.input_ids and isinstance(obj.input_ids[0], list) else 1
    embeds: Any = getattr(obj, "input_embeds", None) or [[0.0]]  # of one prompt, a list of lists of numbers
    return len(embeds) if embeds[0] and isinstance(embeds[0][0], list) else 1


async def around_handle_request(
    original: Callable[..., Any], serving: Any, request: Any, raw_request: Any
) -> Any:
    """Tag a chat completion or completion, and report the `service_tier` that it was served with."""
    if not hasattr(request, "custom_params") or not hasattr(raw_request, "state"):
        return await original(serving, request, raw_request)
    settings = launch_args.settings_of(serving.tokenizer_manager.server_args)
    try:
        tier, sources = await _sources(raw_request, settings)
        tag = sources.tag(parse_tag(request.custom_params), request.priority, settings)
    except TagError as error:
        return _openai_error(error).response()
    response = await original(serving, request, raw_request)
    if tier is None:
        return response
    return _with_tier(response, tier_served(tier, settings.class_of(tag, request.priority)))


async def around_create_responses(
    original: Callable[..., Any], serving: Any, request: Any, raw_request: Any = None
) -> Any:
    """Tag a request of `/v1/responses`, and report the `service_tier` that it was served with."""
    if raw_request is None or not hasattr(raw_request, "state"):
        return await original(serving, request, raw_request)
    settings = launch_args.settings_of(serving.tokenizer_manager.server_args)
    try:
        tier, sources = await _sources(raw_request, settings)
    except TagError as error:
        return _openai_error(error).response()
    response = await original(serving, request, raw_request)
    if tier is None:
        return response
    tag = sources.tag(Tag(), request.priority, settings)  # SGLang takes no custom_params here
    served = tier_served(tier, settings.class_of(tag, request.priority))
    return _response_with_tier(response, served)


def after_known_model_names(names: set[str], serving: Any) -> set[str]:
    """Let `/v1/responses`, which checks the model's name, take aliases as the other routes do."""
    return names | set(launch_args.settings_of(serving.tokenizer_manager.server_args).models)


async def _sources(raw_request: Any, settings: BrosSettings) -> tuple[str | None, Sources]:
    """Return the service tier asked for, and all that is said; note the latter on the request."""
    body = await raw_request.json()  # parsed by FastAPI already; SGLang's models drop the field
    said = body if isinstance(body, dict) else {}
    tier = getattr(raw_request.state, responses_batch_tier.STATE, said.get("service_tier"))
    sources = sources_of(raw_request.headers, tier, said.get("model"), settings)
    setattr(raw_request.state, _SOURCES, sources)
    return tier, sources


def _openai_error(error: TagError | RefusedError) -> OpenAIError:
    if isinstance(error, RefusedError):
        return error.error
    return OpenAIError(400, str(error), param=error.field)


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


def _response_with_tier(response: Any, tier: str) -> Any:
    """Add `service_tier` to a response of `/v1/responses`, or to those within the events of a stream."""
    if not hasattr(response, "__aiter__"):
        return _with_tier(response, tier)
    return _with_tier_within(response, tier)


async def _with_tier_within(events: AsyncIterable[str], tier: str) -> AsyncIterator[str]:
    """Add the field to the response that the events on its beginning and end carry."""
    async for event in events:
        name, _, data = event.partition("\ndata: ")
        payload = json.loads(data) if name.startswith("event: response.") and '"response":' in data else None
        if isinstance(payload, dict) and isinstance(payload.get("response"), dict):
            payload["response"]["service_tier"] = tier
            yield f"{name}\ndata: {json.dumps(payload, separators=(',', ':'))}\n\n"
        else:
            yield event
