"""An answer whose status is not known before the request was let in.

SGLang begins a stream with status 200 before it looks at the request. This ASGI middleware holds a stream's
beginning until the request was let in (`release`) or refused (`refuse`), and gives a refused request the
status and body that OpenAI's API gives. Other answers pass, refused ones in OpenAI's form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from bros_sglang.openai_errors import OpenAIError

    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]
    Receive = Callable[[], Awaitable[Message]]
    Scope = MutableMapping[str, Any]

_STATE: Final = "bros_answer"  # in the scope's state, which Starlette shows as `request.state`


class HeldAnswer:
    """The answer to one request, held until it may begin."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._held: list[Message] = []
        self._released = False
        self._refusal: OpenAIError | None = None
        self._answered = False

    def refuse(self, error: OpenAIError) -> None:
        """Answer with an error, whatever the route makes of it; too late once the answer has begun."""
        if not self._released:
            self._refusal = error

    async def release(self) -> None:
        """Let the answer begin, and pass what comes."""
        self._released = True
        held, self._held = self._held, []
        for message in held:
            await self._send(message)

    async def send(self, message: Message) -> None:
        """Take a message of the route's answer."""
        if self._answered:
            return
        if self._refusal is not None:
            self._answered = True
            self._held.clear()
            await self._refusal.response()(self._scope, self._receive, self._send)
            return
        if self._released:
            await self._send(message)
            return
        self._held.append(message)
        begins_stream = message["type"] == "http.response.start" and _is_stream(message)
        within_stream = len(self._held) > 1 and message.get("more_body", False)
        if not begins_stream and not within_stream:
            await self.release()


def _is_stream(start: Message) -> bool:
    return start["status"] == 200 and not any(name == b"content-length" for name, _ in start["headers"])


class HoldAnswers:
    """The middleware."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT"):
            await self._app(scope, receive, send)
            return
        answer = HeldAnswer(scope, receive, send)
        scope.setdefault("state", {})[_STATE] = answer
        await self._app(scope, receive, answer.send)


def answer_of(request: Any) -> HeldAnswer | None:
    """Return the held answer of a Starlette request; None where the middleware is not in the way."""
    answer: HeldAnswer | None = getattr(request.state, _STATE, None)
    return answer
