"""How a request is put to a server, and how its stream is read: SGLang's /generate and OpenAI's completions.

SGLang's own benchmark client (`sglang.benchmark.serving.async_request_sglang_generate`) sends the same
bodies. It is not called here: it reads a module-wide argparse namespace, imports the engine, opens a
connection per request and records no tokens of a request that is cut off.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from bros_sglang.evals.workloads.request import prompt_token_ids
from bros_sglang.request_class import TAG_KEY, RequestClass

if TYPE_CHECKING:
    from bros_sglang.evals.workloads.request import WorkloadRequest

# Stock priorities of the two classes. Their difference must exceed SGLang's preemption threshold, 10 by
# default.
RT_PRIORITY, BE_PRIORITY = 10, -10
# Tokens per chunk of a best-effort answer: nobody reads along, and a chunk per token would keep the server's
# tokenizer process and this client busy with what no batch client asks for. The first token comes at once.
BE_STREAM_INTERVAL = 16
# Every tokenizer has these many ordinary tokens, so prompts can be sent as ids to a model that is not known.
SAFE_VOCAB_SIZE = 1000


@dataclass(slots=True)
class Progress:
    """What a stream has told so far."""

    tokens: int = 0  # generated
    cached_tokens: int = 0
    preemptions: int = 0
    done: bool = False
    error: str | None = None


def tag_of(request: WorkloadRequest) -> dict[str, Any]:
    """Return `custom_params` with the request's class and targets."""
    tag: dict[str, Any] = {"class": request.request_class.value}
    if request.request_class is RequestClass.RT:
        targets = {"ttft_ms": request.ttft_ms, "tpot_ms": request.tpot_ms}
        tag |= {key: value for key, value in targets.items() if value is not None}
    return {TAG_KEY: tag}


@dataclass(frozen=True)
class Dialect(ABC):
    """One HTTP interface. `low_first` says that the server serves lower priorities first (vLLM)."""

    vocab_size: int = SAFE_VOCAB_SIZE
    low_first: bool = False
    model: str = "default"

    path: str = ""
    tells_preemptions: bool = False  # per request

    def priority(self, request: WorkloadRequest) -> int:
        """Return the stock priority of a request's class."""
        value = RT_PRIORITY if request.request_class is RequestClass.RT else BE_PRIORITY
        return -value if self.low_first else value

    @abstractmethod
    def body(self, request: WorkloadRequest) -> bytes:
        """Return the JSON body that asks for exactly the request's output length."""

    @abstractmethod
    def read(self, event: bytes, progress: Progress) -> None:
        """Take one server-sent event's data into the progress."""


@dataclass(frozen=True)
class SGLangDialect(Dialect):
    """SGLang's native /generate."""

    path: str = "/generate"
    tells_preemptions: bool = True
    rid_prefix: str | None = None  # told to the server with our request ids; prompts follow from both

    def body(self, request: WorkloadRequest) -> bytes:
        """Return the body; its request id is the server's choice unless there is a `rid_prefix`."""
        sampling: dict[str, Any] = {
            "temperature": 0.0,
            "max_new_tokens": request.output_tokens,
            "ignore_eos": True,
            "custom_params": tag_of(request),
        }
        if request.request_class is RequestClass.BE:
            sampling["stream_interval"] = BE_STREAM_INTERVAL
        body = {
            "input_ids": prompt_token_ids(request, self.vocab_size).tolist(),
            "sampling_params": sampling,
            "priority": self.priority(request),
            "stream": True,
        }
        if self.rid_prefix is not None:
            own = replace(request, rid=self.rid_prefix + request.rid)
            body |= {"rid": own.rid, "input_ids": prompt_token_ids(own, self.vocab_size).tolist()}
        return orjson.dumps(body)

    def read(self, event: bytes, progress: Progress) -> None:
        """Take an event; its counts are cumulative, so each replaces what the earlier ones said."""
        if event == b"[DONE]":
            return
        data = orjson.loads(event)
        if "error" in data:
            progress.error = _message(data["error"])
            return
        meta = data["meta_info"]
        progress.tokens = meta["completion_tokens"]
        progress.cached_tokens = meta.get("cached_tokens") or 0
        progress.preemptions = meta.get("num_retractions") or 0
        reason = meta.get("finish_reason")
        if reason:
            progress.done = True
            if reason.get("type") == "abort":
                progress.error = f"aborted by the server: {reason.get('message', '')}"


@dataclass(frozen=True)
class OpenAIDialect(Dialect):
    """OpenAI's /v1/completions, as SGLang, vLLM and others serve it; prompts go as token ids."""

    path: str = "/v1/completions"

    def body(self, request: WorkloadRequest) -> bytes:
        """Return the body. `ignore_eos` and token-id prompts are extensions that SGLang and vLLM share."""
        return orjson.dumps(
            {
                "model": self.model,
                "prompt": prompt_token_ids(request, self.vocab_size).tolist(),
                "max_tokens": request.output_tokens,
                "temperature": 0.0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                "priority": self.priority(request),
                "custom_params": tag_of(request),
            }
        )

    def read(self, event: bytes, progress: Progress) -> None:
        """Use the running usage where the server sends it, else count chunks that carry text."""
        if event == b"[DONE]":
            progress.done = True
            return
        data = orjson.loads(event)
        if "error" in data:
            progress.error = _message(data["error"])
            return
        usage = data.get("usage")
        choices = data.get("choices")
        if usage:
            progress.tokens = max(progress.tokens, usage.get("completion_tokens") or 0)
            details = usage.get("prompt_tokens_details") or {}
            progress.cached_tokens = details.get("cached_tokens") or progress.cached_tokens
        elif choices and choices[0].get("text"):
            progress.tokens += 1


def _message(error: Any) -> str:
    return str(error.get("message", error) if isinstance(error, dict) else error)


def split_events(buffer: bytearray) -> list[bytes]:
    """Take the complete server-sent events out of the buffer; return their data, oldest first.

    What is left in the buffer is the beginning of the next line. Comments and other fields are dropped. Both
    dialects put an event's data on one line.
    """
    end = buffer.rfind(b"\n")
    if end < 0:
        return []
    whole = bytes(buffer[:end])
    del buffer[: end + 1]
    return [line[5:].strip() for line in whole.split(b"\n") if line.startswith(b"data:")]
