"""Bodies of the mock's answers: completions, errors, and usage with a small prefix cache behind it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final
from zlib import crc32

import orjson

CHARS_PER_TOKEN: Final = 4  # the mock has no tokenizer; English text averages about this
BLOCK_CHARS: Final = 64  # granularity of the prefix cache
ECHO_CHARS: Final = 96


class PrefixCache:
    """How many leading tokens of a prompt were seen lately: chained block hashes in a bounded LRU."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks  # capacity; 0 turns the cache off
        self._seen: OrderedDict[int, None] = OrderedDict()

    def cached_tokens(self, text: str) -> int:
        """Return the leading tokens of `text` found in the cache, and put all of its blocks in."""
        if not self._blocks:
            return 0
        chain, hits, matching = 0, 0, True
        for start in range(0, len(text) - BLOCK_CHARS + 1, BLOCK_CHARS):
            chain = crc32(text[start : start + BLOCK_CHARS].encode(), chain) ^ (start << 32)
            if chain in self._seen:
                self._seen.move_to_end(chain)
                hits += matching
            else:
                matching = False
                self._seen[chain] = None
        while len(self._seen) > self._blocks:
            self._seen.popitem(last=False)
        return hits * BLOCK_CHARS // CHARS_PER_TOKEN


def prompt_text(body: dict[str, Any]) -> str:
    """Join what the model would read. Raises ValueError for a body that OpenAI's API would refuse."""
    messages, prompt = body.get("messages"), body.get("prompt")
    if isinstance(messages, list) and messages:
        parts = [message.get("content") if isinstance(message, dict) else None for message in messages]
        if any(not isinstance(part, str | list) for part in parts):
            raise ValueError("messages: each needs a content")
        return "\n".join(part if isinstance(part, str) else orjson.dumps(part).decode() for part in parts)
    if isinstance(prompt, str) and prompt:
        return prompt
    raise ValueError("the body needs a non-empty 'messages' or 'prompt'")


def completion(body: dict[str, Any], text: str, cached: int, number: int, *, chat: bool) -> dict[str, Any]:
    """Build the answer: an echo of the prompt's end, `max_tokens` tokens of usage."""
    answer = f"echo: {text[-ECHO_CHARS:]}"
    asked = body.get("max_tokens") or body.get("max_completion_tokens") or 16
    prompt_tokens = max(1, len(text) // CHARS_PER_TOKEN)
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if chat:
        choice["message"] = {"role": "assistant", "content": answer}
    else:
        choice["text"] = answer
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-mock-{number}",
        "object": "chat.completion" if chat else "text_completion",
        "created": 1700000000,
        "model": body.get("model", "mock"),
        "choices": [choice],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": asked,
            "total_tokens": prompt_tokens + asked,
            "prompt_tokens_details": {"cached_tokens": min(cached, prompt_tokens)},
        },
    }


def error_body(message: str, status: int) -> bytes:
    """Build OpenAI's error object."""
    kinds = {400: "invalid_request_error", 401: "invalid_request_error", 404: "not_found_error"}
    kind = kinds.get(status, "rate_limit_error" if status == 429 else "server_error")
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}})
