"""How many tokens a corpus is, and how long that takes at a rate that was measured."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.request import CHAT_URL, BatchRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bros_sglang.cli.batch.prefix_order import Window


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    chat_template: Any

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Return token ids."""
        ...

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> Any:
        """Return the rendered prompt."""
        ...


def load_tokenizer(model: str) -> Tokenizer:
    """Load a model's tokenizer, from a folder or the local cache. Raises RefusedError."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise RefusedError("counting tokens needs the transformers package") from None
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise RefusedError(f"--tokenizer {model}: {str(error).splitlines()[0]}") from None
    return tokenizer


def prompt_tokens(tokenizer: Tokenizer, request: BatchRequest) -> int:
    """Count the tokens of a request's prompt, chat template included."""
    body: dict[str, Any] = orjson.loads(request.payload)
    if request.url != CHAT_URL:
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        return sum(1 if isinstance(part, int) else len(tokenizer.encode(part)) for part in prompts)
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
        return len(tokenizer.encode(text, add_special_tokens=False))
    texts = (message.get("content") for message in body["messages"])
    return sum(len(tokenizer.encode(text)) for text in texts if isinstance(text, str))


def longest_answer(request: BatchRequest) -> int | None:
    """Return the request's own limit on its answer, in tokens; None where it has none."""
    body = orjson.loads(request.payload)
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    return int(limit) if isinstance(limit, int | float) else None


@dataclass(slots=True)
class Sample:
    """A uniform sample of the requests (reservoir), and how many there are. `size` None keeps counts only."""

    size: int
    seen: int = 0
    kept: list[BatchRequest] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    def add(self, request: BatchRequest) -> None:
        """Take a request, or not."""
        self.seen += 1
        if len(self.kept) < self.size:
            self.kept.append(request)
            return
        slot = self._random.randrange(self.seen)
        if slot < self.size:
            self.kept[slot] = request


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a corpus asks for. Exact where every request was counted."""

    requests: int
    bad_lines: int
    counted: int  # requests whose tokens were counted
    prompt_tokens: int
    output_limit_tokens: int | None  # sum of the requests' own limits; None where one has none
    shared_share: float  # of prompt bytes: the request sent before begins alike (sampled)

    @property
    def is_exact(self) -> bool:
        """Whether nothing was extrapolated."""
        return self.counted == self.requests


def estimate(
    windows: Iterable[Window], tokenizer: Tokenizer, sample_size: int | None
) -> tuple[Estimate, list[BatchRequest]]:
    """Count a corpus; `sample_size` None counts every request. Returns the sample, too (for a probe).

    Memory holds the sample only: 64 requests where all are counted.
    """
    sample = Sample(sample_size or 64)
    bad = counted = tokens = limit = 0
    limited = True

    def count(request: BatchRequest) -> None:
        nonlocal counted, tokens, limit, limited
        counted += 1
        tokens += prompt_tokens(tokenizer, request)
        own = longest_answer(request)
        limited = limited and own is not None
        limit += own or 0

    for window in windows:
        bad += len(window.rejected)
        for request in window.requests:
            sample.add(request)
            if sample_size is None:
                count(request)
    if sample_size is not None:
        for request in sample.kept:
            count(request)
    scale = sample.seen / counted if counted else 0.0
    found = Estimate(
        requests=sample.seen,
        bad_lines=bad,
        counted=counted,
        prompt_tokens=round(tokens * scale),
        output_limit_tokens=round(limit * scale) if limited and counted else None,
        shared_share=0.0,
    )
    return found, sample.kept
