"""What leaves the prefix tree first: class and worth, encoded in the integer that the tree core orders by.

SGLang's tree cores (Rust and Python) keep one integer per node, the maximum over everyone who inserted the
node or something below it, and under `--radix-eviction-policy priority` evict the leaf with the lowest
(priority, last access) first. A priority can be raised but never lowered, so the encoding ages the way
GreedyDual does: worth is added to a clock that advances as cache is evicted, and a node that nobody raises
again is overtaken by newer ones. The maximum makes a node that both classes use real-time.

    priority = class band + epoch + worth in epochs

All plain integers: every tensor-parallel rank computes the same.
"""

from dataclasses import dataclass
from typing import Final

from bros_sglang.request_class import RequestClass

# Above any epoch a server reaches, so that all best-effort cache goes before any real-time cache.
RT_BAND: Final = 1 << 48
MAX_WORTH_EPOCHS: Final = 12
PROMPT_EPOCHS: Final = 1
FIRST_WAITER_EPOCHS: Final = 2
EPOCHS_PER_DOUBLING: Final = 2
LONG_CONTEXT_TOKENS: Final = 16_384


@dataclass(slots=True)
class EvictionClock:
    """Counts how often the cache has turned over, in `epochs_per_turnover`-ths of the pool.

    pool_tokens: KV tokens in the pool. Worth of w epochs thus outlives w / epochs_per_turnover of a
    pool's worth of evictions.
    """

    pool_tokens: int
    epochs_per_turnover: int = 16
    evicted_tokens: int = 0

    def advance(self, evicted_tokens: int) -> None:
        """Count tokens evicted from the device."""
        self.evicted_tokens += evicted_tokens

    @property
    def epoch(self) -> int:
        """The current time; never falls."""
        return self.evicted_tokens * self.epochs_per_turnover // max(self.pool_tokens, 1)


def worth_epochs(*, is_prompt: bool, waiting: int = 0, context_tokens: int = 0) -> int:
    """How many epochs a node should outlive one that is inserted now and nobody wants.

    is_prompt: prompts are shared and asked again, answers rarely. waiting: queued best-effort requests
    about to use the node. context_tokens: depth of the
    node's end; attention makes deep tokens dearer to recompute, by about their own cost per 16k tokens.
    """
    demand = FIRST_WAITER_EPOCHS + EPOCHS_PER_DOUBLING * (waiting.bit_length() - 1) if waiting > 0 else 0
    depth = context_tokens // LONG_CONTEXT_TOKENS
    return min((PROMPT_EPOCHS if is_prompt else 0) + demand + depth, MAX_WORTH_EPOCHS)


def node_priority(request_class: RequestClass, epoch: int, worth: int) -> int:
    """Return the priority to insert with, for SGLang's `InsertParams.priority`."""
    return (RT_BAND if request_class is RequestClass.RT else 0) + epoch + worth


def priority_class(priority: int) -> RequestClass:
    """Return the class that a node's priority encodes."""
    return RequestClass.RT if priority >= RT_BAND else RequestClass.BE
