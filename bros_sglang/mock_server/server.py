"""The mock's HTTP side, on aiohttp's low-level server: routing tables cost more than the answers do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import orjson
from aiohttp import web

from bros_sglang.mock_server.faults import Fault, FaultPlan
from bros_sglang.mock_server.live_status import simulated_status
from bros_sglang.mock_server.replies import PrefixCache, completion, error_body, prompt_text

if TYPE_CHECKING:
    from types import TracebackType

_JSON: Final = "application/json"
_COMPLETIONS: Final = {"/v1/chat/completions": True, "/v1/completions": False}  # path → chat?


@dataclass(frozen=True, slots=True)
class MockSettings:
    """What the mock pretends to be."""

    model: str = "mock"
    faults: FaultPlan = field(default_factory=FaultPlan)
    latency_s: float = 0.0  # service time of one request
    slots: int | None = None  # requests served at once; more wait in line (None: no limit)
    max_waiting: int | None = None  # beyond it: 429 with Retry-After (None: no limit)
    retry_after_s: float = 0.05
    bros: bool = False  # serve /bros/status
    refuse_unknown_fields: bool = False  # answer 400 to `custom_params`, as strict servers do
    api_key: str | None = None
    prefix_blocks: int = 65_536  # blocks of 64 characters in the prefix cache; 0: off


class MockServer:
    """The mock server; an async context manager. `url` is known once it has been entered.

    Counts are in `counts` (also `GET /mock/stats`): requests, ok, be_tagged, one per fault, waiting_peak.
    """

    def __init__(self, settings: MockSettings | None = None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.settings = settings or MockSettings()
        self.counts: Counter[str] = Counter()
        self._host, self._port = host, port
        self._cache = PrefixCache(self.settings.prefix_blocks)
        self._slots: asyncio.Semaphore | None = None
        self._runner: web.ServerRunner | None = None
        self._started_s = 0.0
        self._waiting = 0
        self._in_flight = 0

    @property
    def url(self) -> str:
        """Base URL, without `/v1`."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        """Listen; port 0 takes a free one."""
        if self.settings.slots is not None:
            self._slots = asyncio.Semaphore(self.settings.slots)
        self._started_s = time.monotonic()
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, backlog=4096)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    def reconfigure(self, **changes: Any) -> None:
        """Change settings while it serves (tests break and mend a server so)."""
        self.settings = replace(self.settings, **changes)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        chat = _COMPLETIONS.get(request.path)
        if chat is not None and request.method == "POST":
            return await self._complete(request, chat=chat)
        if request.path == "/v1/models" and not self._may(request):
            return _error(401, "invalid API key")
        return self._look_up(request.path)

    def _may(self, request: web.BaseRequest) -> bool:
        key = self.settings.api_key
        return key is None or request.headers.get("Authorization") == f"Bearer {key}"

    def _look_up(self, path: str) -> web.Response:
        settings = self.settings
        if path == "/v1/models":
            entry = {"id": settings.model, "object": "model", "owned_by": "mock", "max_model_len": 32_768}
            return _json({"object": "list", "data": [entry]})
        if path in ("/health", "/health_generate"):
            return web.Response(status=200)
        if path == "/mock/stats":
            return _json({**self.counts, "in_flight": self._in_flight, "waiting": self._waiting})
        if path == "/bros/status" and settings.bros:
            uptime_s = time.monotonic() - self._started_s
            status = simulated_status(
                uptime_s, time.time(), model=settings.model, be_waiting=self._waiting
            ).model_dump_json()
            return web.Response(text=status, content_type=_JSON)
        return web.Response(status=404, body=error_body(f"no route {path}", 404), content_type=_JSON)

    async def _complete(self, request: web.BaseRequest, *, chat: bool) -> web.StreamResponse:
        self.counts["requests"] += 1
        raw = await request.read()
        settings = self.settings
        if (
            settings.api_key is not None
            and request.headers.get("Authorization") != f"Bearer {settings.api_key}"
        ):
            return _error(401, "invalid API key")
        if settings.max_waiting is not None and self._waiting > settings.max_waiting:
            self.counts["throttled"] += 1
            return _error(429, "too many requests queued", settings.retry_after_s)
        fault = settings.faults.draw(raw)
        if fault is not None:
            self.counts[f"fault_{fault}"] += 1
            if fault != Fault.CUT_MID and fault not in (Fault.BROKEN, Fault.EMPTY):
                return await self._hurt(request, fault)
        try:
            body = orjson.loads(raw)
            text = prompt_text(body)
        except (ValueError, AttributeError) as error:
            return _error(400, str(error))
        if settings.refuse_unknown_fields and "custom_params" in body:
            return _error(400, "unknown field: custom_params")
        tag = body.get("custom_params", {}).get("bros", {}).get("class")
        self.counts["be_tagged"] += tag == "be"
        await self._serve()
        answer = orjson.dumps(
            completion(body, text, self._cache.cached_tokens(text), self.counts["requests"], chat=chat)
        )
        if fault is not None:
            return await self._spoil(request, fault, answer)
        self.counts["ok"] += 1
        if body.get("stream"):
            return await _stream(request, answer)
        return web.Response(body=answer, content_type=_JSON)

    async def _serve(self) -> None:
        """Wait for a slot, then for the service time."""
        latency_s = self.settings.latency_s
        if self._slots is None:
            if latency_s:
                await asyncio.sleep(latency_s)
            return
        self._waiting += 1
        self.counts["waiting_peak"] = max(self.counts["waiting_peak"], self._waiting)
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._in_flight += 1
        try:
            await asyncio.sleep(latency_s)
        finally:
            self._in_flight -= 1
            self._slots.release()

    async def _hurt(self, request: web.BaseRequest, fault: str) -> web.StreamResponse:
        if fault == Fault.STALL:
            await asyncio.sleep(3600)
        if fault in (Fault.CUT, Fault.STALL):
            return _cut(request)
        status = int(fault)
        retry_after_s = self.settings.retry_after_s if status in (429, 503) else None
        return _error(status, f"mock fault {status}", retry_after_s)

    async def _spoil(self, request: web.BaseRequest, fault: str, answer: bytes) -> web.StreamResponse:
        if fault == Fault.EMPTY:
            return web.Response(body=b"", content_type=_JSON)
        half = answer[: len(answer) // 2]
        if fault == Fault.BROKEN:
            return web.Response(body=half, content_type=_JSON)
        transport = request.transport
        if transport is not None:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {_JSON}\r\nContent-Length: {len(answer)}\r\n\r\n"
            transport.write(head.encode() + half)
            await asyncio.sleep(0.001)
        return _cut(request)


def _cut(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)  # goes nowhere: the connection is gone


def _json(value: Any) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type=_JSON)


def _error(status: int, message: str, retry_after_s: float | None = None) -> web.Response:
    headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
    return web.Response(status=status, body=error_body(message, status), content_type=_JSON, headers=headers)


async def _stream(request: web.BaseRequest, answer: bytes) -> web.StreamResponse:
    """Send the answer word by word as server-sent events, usage in the last one."""
    whole = orjson.loads(answer)
    choice = whole["choices"][0]
    chat = "message" in choice
    text: str = choice["message"]["content"] if chat else choice["text"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    frame = {key: whole[key] for key in ("id", "created", "model")}
    frame["object"] = "chat.completion.chunk" if chat else "text_completion"
    words = text.split(" ")
    for index, word in enumerate(words):
        piece = word if index == 0 else f" {word}"
        part: dict[str, Any] = {"index": 0, "finish_reason": "stop" if index == len(words) - 1 else None}
        part["delta" if chat else "text"] = {"role": "assistant", "content": piece} if chat else piece
        await response.write(b"data: " + orjson.dumps({**frame, "choices": [part]}) + b"\n\n")
    await response.write(
        b"data: " + orjson.dumps({**frame, "choices": [], "usage": whole["usage"]}) + b"\n\n"
    )
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response
