"""What a workload yields: one request, and a deterministic stream of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Tokenizers keep their special tokens at the low end (0 = unknown, 1 = begin, 2 = end …): prompts avoid them.
FIRST_ORDINARY_TOKEN = 16


@dataclass(frozen=True, slots=True)
class WorkloadRequest:
    """One request as a client would send it, its true output length included.

    `arrival_s` counts from the start of the run in an open loop; in a closed loop it is 0.0 and the request
    is issued when a seat is free. `prefix` holds the leading blocks of the prompt as (block id, tokens):
    equal ids stand for equal tokens, which a radix cache can share. They are part of `prompt_tokens`.
    """

    rid: str
    request_class: RequestClass
    arrival_s: float
    prompt_tokens: int  # in all, shared prefix included
    output_tokens: int  # the true length
    max_new_tokens: int  # the client's limit, >= output_tokens
    prefix: tuple[tuple[int, int], ...] = ()
    ttft_ms: float | None = None
    tpot_ms: float | None = None

    @property
    def total_tokens(self) -> int:
        """Prompt and output tokens together."""
        return self.prompt_tokens + self.output_tokens


class Workload(ABC):
    """A deterministic stream of requests: iterating twice gives the same requests.

    With `closed_loop` None the requests come in order of `arrival_s` and the stream ends. Otherwise
    `closed_loop` requests are outstanding at any time and the stream may be endless: the run's length is its
    bound.
    """

    name: str
    seed: int
    closed_loop: int | None

    @abstractmethod
    def __iter__(self) -> Iterator[WorkloadRequest]:
        """Yield the requests from the first one on."""


@dataclass(frozen=True)
class ListedWorkload(Workload):
    """A workload whose requests are all known: a trace, or arrivals that were drawn beforehand."""

    name: str
    requests: tuple[WorkloadRequest, ...] = field(repr=False)
    seed: int = 0
    closed_loop: int | None = None

    def __iter__(self) -> Iterator[WorkloadRequest]:
        """Yield the requests in order of arrival."""
        return iter(self.requests)

    def __len__(self) -> int:
        return len(self.requests)


def _stream(key: str) -> np.random.Generator:
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _draw(key: str, tokens: int, vocab_size: int) -> NDArray[np.int64]:
    low = FIRST_ORDINARY_TOKEN if vocab_size > 2 * FIRST_ORDINARY_TOKEN else 0
    return _stream(key).integers(low, vocab_size, size=tokens, dtype=np.int64)


@lru_cache(maxsize=4096)
def _block(block_id: int, tokens: int, vocab_size: int) -> NDArray[np.int64]:
    return _draw(f"block/{block_id}", tokens, vocab_size)


def prompt_token_ids(request: WorkloadRequest, vocab_size: int) -> NDArray[np.int64]:
    """Return the prompt's token ids, shape (prompt_tokens,), the same in every process and on every machine.

    Equal prefix block ids give equal tokens; everything after the prefix is unique to the rid. Raises
    ValueError where the prefix is longer than the prompt.
    """
    shared = sum(tokens for _, tokens in request.prefix)
    if shared > request.prompt_tokens:
        raise ValueError(
            f"request {request.rid}: prefix of {shared} tokens in a prompt of {request.prompt_tokens}"
        )
    parts = [_block(block_id, tokens, vocab_size) for block_id, tokens in request.prefix]
    parts.append(_draw(f"rid/{request.rid}", request.prompt_tokens - shared, vocab_size))
    return np.concatenate(parts)


__all__ = ["ListedWorkload", "RequestClass", "Workload", "WorkloadRequest", "prompt_token_ids"]
