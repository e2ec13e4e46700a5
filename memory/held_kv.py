"""Locks on the KV of preempted requests, shortened from the tail by as much as is really needed."""

from typing import Any

from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams
from sglang.srt.mem_cache.radix_cache import RadixKey

from bros_sglang.memory.host_pins import HostPins
from bros_sglang.memory.preempted import PreemptedLedger
from bros_sglang.request_class import RequestClass

# Give up at least so much at a time: a decode step that needs a few slots should not cut a node each time.
SMALLEST_CUT_TOKENS = 64


class HeldKV:
    """Keeps preempted requests' prefixes locked in the prefix tree until someone entitled needs the room.

    A lock covers a path from the root. Giving up the last n tokens of a prefix means to lock the path that
    ends n tokens earlier (a match that ends inside a node splits it there) and to release the old lock: the
    tail becomes ordinary evictable cache of its class, the rest cannot be evicted. Where there is a host
    cache, what was copied to it stays there for the request (`pins`).
    """

    def __init__(self, tree: Any) -> None:
        self._tree = tree
        self._locks: dict[str, tuple[RadixKey, Any]] = {}  # rid -> key of the held path, its lock
        self._to_recount: set[str] = set()  # held while copies to host pinned some of it
        self.ledger = PreemptedLedger()
        self.pins = HostPins(tree)

    @property
    def tokens(self) -> int:
        """KV held that giving up would free."""
        return self.ledger.held_tokens

    @property
    def protected_tokens(self) -> int:
        """KV under the locks; shared prefixes count once per holder."""
        return sum(entry.kept_tokens for entry in self.ledger.resume_order())

    def locks(self) -> list[Any]:
        """Return the locks, for checks."""
        return [lock for _, lock in self._locks.values() if lock is not None]

    def hold(self, req: Any, request_class: RequestClass, kept_tokens: int) -> None:
        """Hold the first `kept_tokens` of a request that was just released; its path is in the tree."""
        self.drop(req.rid)
        before = int(self._tree.evictable_size())
        # The key as of now: retraction may drop generated tokens from the request (input embeddings).
        key = self._tree.request_key(req, kept_tokens)
        lock = self._lock_prefix(key, kept_tokens) if kept_tokens else None
        self._locks[req.rid] = (key, lock)
        own_tokens = before - int(self._tree.evictable_size())
        if lock is not None:
            self.pins.pin(req.rid, lock.node, own_tokens)
        self.ledger.add(
            req.rid,
            request_class,
            total_tokens=len(req.origin_input_ids) + len(req.output_ids),
            kept_tokens=kept_tokens,
            yieldable_tokens=own_tokens,
        )
        if self._tree.copies_under_way:
            self._to_recount.add(req.rid)

    def recount(self) -> None:
        """Count anew what was held while copies to host pinned part of it."""
        for rid in self._to_recount:
            _, lock = self._locks[rid]
            if lock is None:
                continue
            before = int(self._tree.evictable_size())
            self._tree.unlock(lock)
            freed = int(self._tree.evictable_size()) - before
            self._locks[rid] = (self._locks[rid][0], self._tree.lock(lock.node))
            self.ledger.counted(rid, freed)
        if not self._tree.copies_under_way:
            self._to_recount.clear()

    def drop(self, rid: str) -> None:
        """Hold a request's KV no longer: it runs again, or never will. Unknown requests are fine."""
        self._to_recount.discard(rid)
        if self.ledger.remove(rid) is not None:
            _, lock = self._locks.pop(rid)
            self._tree.unlock(lock)
            self.pins.release(rid)

    def clear(self) -> None:
        """Forget all locks without releasing them: the tree was reset."""
        self._locks.clear()
        self._to_recount.clear()
        self.pins.clear()
        self.ledger.clear()

    def give_up(self, tokens: int, *, keep_rid: str | None = None) -> int:
        """Turn at least `tokens` held tokens into evictable cache, from the tails of those who resume last.

        keep_rid: a request that gives up nothing (it is about to resume). Returns how many became
        evictable: fewer if less is held, a little more since pages are whole and cuts not tiny.
        """
        freed = 0
        for entry in self.ledger.yield_order():
            while freed < tokens and entry.kept_tokens and entry.rid != keep_rid:
                cut = max(tokens - freed, SMALLEST_CUT_TOKENS)
                gained = self._shrink(entry.rid, entry.kept_tokens - cut)
                freed += gained
                if not gained and entry.kept_tokens:
                    # The tail is in use by others; what is above it may not be.
                    freed += self._shrink(entry.rid, entry.kept_tokens // 2)
            if freed >= tokens:
                break
        return freed

    def _shrink(self, rid: str, wanted_tokens: int) -> int:
        page = self._tree.page_size
        kept = max(0, wanted_tokens) // page * page
        key, lock = self._locks[rid]
        before = int(self._tree.evictable_size())
        shorter = self._lock_prefix(key, kept) if kept else None
        self._tree.unlock(lock)
        self._locks[rid] = (key, shorter)
        freed = int(self._tree.evictable_size()) - before
        self.ledger.shrunk(rid, kept, freed)
        return freed

    def _lock_prefix(self, key: RadixKey, tokens: int) -> Any:
        # A bigram tree counts pairs: n of them span n + 1 tokens.
        limit = tokens + int(self._tree.tree_core.is_eagle)
        prefix = RadixKey(key.token_ids, key.extra_key, limit=limit, cache_salt=key.cache_salt)
        match = self._tree.tree_core.match_prefix(MatchPrefixParams(key=prefix))
        self._tree._apply_cache_actions(match.cache_actions)
        if match.device_prefix_len != tokens:
            raise RuntimeError(f"held KV is gone: {match.device_prefix_len} of {tokens} tokens cached")
        return self._tree.lock(match.last_device_node)
