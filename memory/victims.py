"""Whom to preempt: best-effort requests that give the needed room at least loss; real-time ones last."""

from collections.abc import Sequence
from dataclasses import dataclass

# What a preemption costs besides recomputation: a new match, a new prefill pass, a seat to wait for.
RESTART_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A running request that could be preempted. Token counts, all from the host."""

    index: int  # the caller's name for it, returned as is
    private_tokens: int  # KV outside the tree: kv_allocated_len - cache_protected_len
    exclusive_tokens: int  # KV in the tree that it alone keeps locked
    generated_tokens: int
    remaining_tokens: int  # until its length limit: it may end sooner
    age_s: float  # since it arrived
    preemptions: int = 0

    @property
    def kv_tokens(self) -> int:
        """KV that becomes available: what others share stays locked and is not counted."""
        return self.private_tokens + self.exclusive_tokens

    def loss(self, needed_tokens: int) -> float:
        """Tokens of work that preempting it for `needed_tokens` is expected to cost.

        Partial preemption: no more is recomputed than is really taken. A request near its end would have
        freed everything by itself soon, so its KV counts again by the share of its output that is done.
        """
        taken = min(self.kv_tokens, max(needed_tokens, 0))
        done = self.generated_tokens / max(self.generated_tokens + self.remaining_tokens, 1)
        return RESTART_TOKENS + taken + done * self.kv_tokens


def choose_victims(
    candidates: Sequence[Candidate],
    *,
    needed_tokens: int,
    needed_slots: int = 0,
    max_preemptions: int = 8,
) -> list[int]:
    """Choose best-effort requests whose preemption frees the tokens and the request slots needed.

    Returns their indices, in the order to preempt them; empty if all together do not suffice, or nothing is
    needed. None whose loss frees nothing is chosen, unless slots are what is needed. Requests preempted
    `max_preemptions` times already are spared while others suffice. Among equals the youngest goes.
    """
    if needed_tokens <= 0 and needed_slots <= 0:
        return []
    useful = [c for c in candidates if c.kv_tokens > 0 or needed_slots > 0]
    fresh = [c for c in useful if c.preemptions < max_preemptions]
    for pool in (fresh, useful):
        if sum(c.kv_tokens for c in pool) >= needed_tokens and len(pool) >= max(needed_slots, 1):
            return [c.index for c in _cover(pool, needed_tokens, needed_slots)]
    return []


def choose_rt_victims(
    candidates: Sequence[Candidate], slack_s: Sequence[float], *, needed_tokens: int, needed_slots: int = 0
) -> list[int]:
    """Choose real-time requests, most slack first; for when no best-effort request is left.

    slack_s: seconds to spare before each candidate's next deadline. Returns indices; empty if all together
    do not suffice.
    """
    if needed_tokens <= 0 and needed_slots <= 0:
        return []
    by_slack = sorted(zip(slack_s, candidates, strict=True), key=lambda pair: -pair[0])
    chosen: list[int] = []
    freed = 0
    for _, candidate in by_slack:
        if freed >= needed_tokens and len(chosen) >= max(needed_slots, 1):
            break
        if candidate.kv_tokens <= 0 and len(chosen) >= needed_slots:
            continue
        chosen.append(candidate.index)
        freed += candidate.kv_tokens
    return chosen if freed >= needed_tokens and len(chosen) >= needed_slots else []


def _cover(pool: Sequence[Candidate], needed_tokens: int, needed_slots: int) -> list[Candidate]:
    """Cheapest of two covers: the best single request, or the best per token freed with spares dropped."""
    by_rate = sorted(
        pool,
        key=lambda c: (c.loss(needed_tokens) / max(min(c.kv_tokens, needed_tokens), 1), c.age_s),
    )
    greedy: list[Candidate] = []
    freed = 0
    for candidate in by_rate:
        if freed >= needed_tokens and len(greedy) >= needed_slots:
            break
        greedy.append(candidate)
        freed += candidate.kv_tokens
    for candidate in sorted(greedy, key=lambda c: -c.loss(needed_tokens)):
        if freed - candidate.kv_tokens >= needed_tokens and len(greedy) > max(needed_slots, 1):
            greedy.remove(candidate)
            freed -= candidate.kv_tokens
    if needed_slots > 1:
        return greedy
    singles = [c for c in pool if c.kv_tokens >= needed_tokens]
    if not singles:
        return greedy
    best = min(singles, key=lambda c: (c.loss(needed_tokens), c.age_s))
    return [best] if best.loss(needed_tokens) <= sum(_losses(greedy, needed_tokens)) else greedy


def _losses(chosen: Sequence[Candidate], needed_tokens: int) -> list[float]:
    """Loss of each, the first ones giving all they have and the last only what is still needed."""
    losses, left = [], needed_tokens
    for candidate in chosen:
        losses.append(candidate.loss(max(left, 0)))
        left -= candidate.kv_tokens
    return losses
