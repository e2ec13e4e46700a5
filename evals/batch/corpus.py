"""Synthetic corpora for the batch runner, written as a stream."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from pathlib import Path

_WORDS: Final = ("budget", "deadline", "token", "cache", "slack", "prefix", "queue", "radix", "page", "chunk")


def write_corpus(
    path: Path,
    requests: int,
    *,
    model: str = "mock",
    prefixes: int = 50,
    prefix_words: int = 40,
    own_words: int = 20,
    max_tokens: int = 16,
    seed: int = 0,
) -> None:
    """Write an OpenAI Batch file: `prefixes` system prompts drawn at random, a text of its own each."""
    draw = random.Random(seed)
    systems = [f"Task {n}. " + " ".join(draw.choices(_WORDS, k=prefix_words)) for n in range(prefixes)]
    with path.open("wb") as file:
        for number in range(requests):
            own = f"Document {number}: " + " ".join(draw.choices(_WORDS, k=own_words))
            messages = [
                {"role": "system", "content": draw.choice(systems)},
                {"role": "user", "content": own},
            ]
            body = {"model": model, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
            line = {
                "custom_id": f"request-{number:08d}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body,
            }
            file.write(orjson.dumps(line) + b"\n")
