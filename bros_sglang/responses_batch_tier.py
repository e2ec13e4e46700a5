"""`service_tier: batch` on `/v1/responses`, whose model in SGLang does not know it.

An ASGI middleware takes it out of the body (`flex` stands there instead) and notes it in the request's state.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from bros_sglang.held_answers import Message, Receive, Scope, Send

STATE: Final = "bros_tier"  # in the scope's state, which Starlette shows as `request.state`


class KnowBatchTier:
    """The middleware."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != "/v1/responses":
            await self._app(scope, receive, send)
            return
        content = b""
        message: Message = {"more_body": True}
        while message.get("more_body", False):
            message = await receive()
            if message["type"] != "http.request":  # the client hung up
                return
            content += message.get("body", b"")
        content = _without_batch(content, scope)
        sent = False

        async def receive_again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}

        await self._app(scope, receive_again, send)


def _without_batch(content: bytes, scope: Scope) -> bytes:
    if b'"batch"' not in content:
        return content
    try:
        body = json.loads(content)
    except ValueError:
        return content  # SGLang says what is wrong with it
    if not isinstance(body, dict) or body.get("service_tier") != "batch":
        return content
    scope.setdefault("state", {})[STATE] = "batch"
    return json.dumps({**body, "service_tier": "flex"}).encode()
