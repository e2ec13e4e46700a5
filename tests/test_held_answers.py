"""Streams begin when their request was let in; refused ones get a status of their own."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bros_sglang.held_answers import HeldAnswer, HoldAnswers, answer_of
from bros_sglang.openai_errors import OpenAIError
from bros_sglang.responses_batch_tier import STATE, KnowBatchTier

ERROR = OpenAIError(429, "too many", kind="requests", code="rate_limit_exceeded", retry_after_s=7)


async def _stream(request: Request) -> Response:
    what = (await request.json())["do"]

    async def pieces() -> Any:
        yield b"data: created\n\n"  # before anybody looked at the request
        answer = answer_of(request)
        assert answer is not None
        if what == "refuse":
            answer.refuse(ERROR)
            yield b'data: {"error": 1}\n\n'
        if what == "let in":
            await answer.release()
            answer.refuse(ERROR)  # too late
        yield b"data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def _plain(request: Request) -> Response:
    answer = answer_of(request)
    if answer is not None and (await request.json())["do"] == "refuse":
        answer.refuse(ERROR)
        return JSONResponse({"object": "error"}, status_code=400)
    return JSONResponse({"fine": True, "tier": getattr(request.state, STATE, None)})


@pytest.fixture
def client() -> httpx.AsyncClient:
    routes = [
        Route("/stream", _stream, methods=["POST"]),
        Route("/plain", _plain, methods=["POST", "GET"]),
        Route("/v1/responses", _plain, methods=["POST"]),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(HoldAnswers), Middleware(KnowBatchTier)])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.mark.parametrize("path", ["/stream", "/plain"])
async def test_a_refusal_replaces_the_answer(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"do": "refuse"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json() == {
        "error": {"message": "too many", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
    }


@pytest.mark.parametrize("what", ["let in", "nothing"])
async def test_a_stream_that_is_let_in_is_whole(client: httpx.AsyncClient, what: str) -> None:
    answer = await client.post("/stream", json={"do": what})
    assert answer.status_code == 200
    assert answer.text == "data: created\n\ndata: [DONE]\n\n"


async def test_other_answers_pass(client: httpx.AsyncClient) -> None:
    assert (await client.post("/plain", json={"do": "nothing"})).json()["fine"]
    assert (await client.get("/plain")).json()["fine"]
    assert (await client.post("/nowhere", json={})).status_code == 404


async def test_a_stream_passes_piece_by_piece_once_it_is_let_in() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    answer = HeldAnswer({"type": "http"}, receive, send)
    start = {"type": "http.response.start", "status": 200, "headers": []}
    await answer.send(start)
    await answer.send({"type": "http.response.body", "body": b"a", "more_body": True})
    assert sent == []
    await answer.release()
    assert len(sent) == 2
    await answer.send({"type": "http.response.body", "body": b"b", "more_body": True})
    assert [message.get("body") for message in sent] == [None, b"a", b"b"]


@pytest.mark.parametrize(
    ("tier", "noted"), [("batch", "batch"), ("flex", None), (None, None), (["batch"], None)]
)
async def test_the_tier_batch_is_taken_out_of_a_body(
    client: httpx.AsyncClient, tier: Any, noted: Any
) -> None:
    body = {"do": "nothing", "input": 'a "batch" of', "service_tier": tier}
    assert (await client.post("/v1/responses", json=body)).json()["tier"] == noted
