"""`--model`: an SGLang engine in this process, behind the same code that answers OpenAI requests in a server.

SGLang's own serving classes (`sglang/srt/entrypoints/openai/serving_{chat,completions}.py`, 0.5.23) apply the
chat template, parse tool calls and build the answer; only the HTTP layer is left out.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from bros_sglang.cli.batch.backend import Load, ServerFacts
from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.reply import Reply
from bros_sglang.cli.batch.request import CHAT_URL, COMPLETIONS_URL

if TYPE_CHECKING:
    from collections.abc import Mapping

_MISSING = "--model needs SGLang in this environment ({error}); with a server, use --endpoint"


class EngineBackend:
    """An offline engine. `start()` blocks until the weights are loaded."""

    def __init__(self, model: str, engine_args: Mapping[str, Any], *, timeout_s: float) -> None:
        self.name = f"offline engine ({model})"
        self._model = model
        self._engine_args = dict(engine_args)
        self._timeout_s = timeout_s
        self._engine: Any = None
        self._routes: dict[str, tuple[type, Any]] = {}  # url → request class, serving object

    async def start(self) -> ServerFacts:
        """Load the model. Raises RefusedError where SGLang is missing or refuses its arguments."""
        try:
            import sglang
            from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest, CompletionRequest
            from sglang.srt.entrypoints.openai.serving_chat import OpenAIServingChat
            from sglang.srt.entrypoints.openai.serving_completions import OpenAIServingCompletion
        except ImportError as error:
            raise RefusedError(_MISSING.format(error=error)) from None
        arguments = {"model_path": self._model, "log_level": "error", "enable_cache_report": True}
        # Its processes must not hear a terminal's Ctrl-C: what is in flight is to be finished first.
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._engine = sglang.Engine(**(arguments | self._engine_args))
        except (OSError, ValueError, TypeError, AssertionError) as error:
            raise RefusedError(f"--model {self._model}: {error}") from None
        finally:
            signal.signal(signal.SIGINT, heard)
        manager, templates = self._engine.tokenizer_manager, self._engine.template_manager
        self._routes = {
            CHAT_URL: (ChatCompletionRequest, OpenAIServingChat(manager, templates)),
            COMPLETIONS_URL: (CompletionRequest, OpenAIServingCompletion(manager, templates)),
        }
        policy = str(manager.server_args.schedule_policy)
        software = f"sglang {sglang.__version__}, offline, policy {policy}"
        return ServerFacts((str(manager.served_model_name),), policy == "bros", software)

    async def send(self, url: str, body: bytes) -> Reply:
        """Answer one request."""
        request_class, serving = self._routes[url]
        try:
            request = request_class(**orjson.loads(body))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            return Reply(400, _error(f"{where}: {first['msg']}"))
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await serving.handle_request(request, None)
        except TimeoutError:
            return Reply(0, problem=f"no answer within {self._timeout_s:g} s")
        if hasattr(answer, "body"):  # a response object: an error with its status, or a ready JSON body
            return Reply(int(answer.status_code), bytes(answer.body))
        return Reply(200, answer.model_dump_json().encode(), str(getattr(answer, "id", "")))

    async def is_healthy(self) -> bool:
        """Tell whether the engine's processes are up."""
        return self._engine is not None and not self._engine.tokenizer_manager.gracefully_exit

    async def load(self) -> Load | None:
        """Return None: the concurrency is found from the throughput."""
        return None

    async def close(self) -> None:
        """Stop the engine's processes."""
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None


def _error(message: str) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error"}})
