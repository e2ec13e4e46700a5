"""The order in which waiting requests are looked at, whatever the length of the queue.

Real-time requests stand in order of the due time of their first token; best-effort ones behind them:
preempted ones first (least to redo), then those whose completion window nears, then shared prefixes together,
then age. A pass sees a window of the front, so 100,000 waiting requests cost what 100 do. Items are opaque
and compared by identity.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from itertools import count, islice
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


# A leader that went away without a word (aborted in mid-prefill) holds the others back no longer than this.
_LEADER_PASSES = 256


class _Due(NamedTuple):
    due_s: float
    sequence: int


class RealTimeQueue(Generic[T]):
    """Real-time requests by due time; those that are late already give way, but not for ever."""

    def __init__(self) -> None:
        self._keys: list[_Due] = []
        self._items: dict[_Due, tuple[T, float]] = {}  # key -> item, longest wait past its due time
        self._key_of: dict[int, _Due] = {}
        self._sequence = count()

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[T]:
        return (self._items[key][0] for key in self._keys)

    def add(self, item: T, due_s: float, patience_s: float) -> None:
        """Queue an item whose first token is due at `due_s`; once `patience_s` late it goes before all."""
        key = _Due(due_s, next(self._sequence))
        insort(self._keys, key)
        self._items[key] = (item, patience_s)
        self._key_of[id(item)] = key

    def discard(self, item: T) -> bool:
        """Take an item out; tell whether it was there."""
        key = self._key_of.pop(id(item), None)
        if key is None:
            return False
        del self._items[key]
        del self._keys[bisect_left(self._keys, key)]
        return True

    def head(self, size: int, now_s: float) -> list[T]:
        """Return the `size` items to look at first: the long late, the savable by due time, the late."""
        first_on_time = bisect_left(self._keys, _Due(now_s, -1))
        late = self._keys[: min(first_on_time, size)]
        suffering = [key for key in late if now_s - key.due_s > self._items[key][1]]
        on_time = self._keys[first_on_time : first_on_time + size]
        waiting = (
            late[len(suffering) :]
            if suffering == late[: len(suffering)]
            else [key for key in late if key not in suffering]
        )
        return [self._items[key][0] for key in (*suffering, *on_time, *waiting)][:size]


class _Group(Generic[T]):
    """Best-effort requests that share a prompt prefix, oldest first."""

    __slots__ = ("leader", "members", "skips", "warm")

    def __init__(self) -> None:
        self.members: dict[int, T] = {}
        self.leader: int | None = None  # id of the member whose prefill computes the shared prefix
        self.warm = False  # the shared prefix has been computed
        self.skips = 0  # times that the others waited for the leader


class BestEffortQueue(Generic[T]):
    """Best-effort requests in the order of the module's docstring; every operation costs O(log n) or less."""

    def __init__(self, turn: int = 64) -> None:
        self._groups: dict[
            Hashable, _Group[T]
        ] = {}  # in order of their oldest member's arrival, then of turns
        self._group_of: dict[int, Hashable] = {}
        self._resumed: list[tuple[int, int]] = []  # (tokens to redo, sequence), sorted
        self._resumed_items: dict[int, T] = {}  # sequence -> item
        self._resumed_key: dict[int, tuple[int, int]] = {}
        self._urgent: list[tuple[float, int, T]] = []  # heap of (when to move up, sequence, item)
        self._sequence = count()
        self._turn = turn
        self._turn_left = turn

    def __len__(self) -> int:
        return len(self._group_of) + len(self._resumed)

    def __iter__(self) -> Iterator[T]:
        yield from (self._resumed_items[sequence] for _, sequence in self._resumed)
        for group in self._groups.values():
            yield from group.members.values()

    @property
    def resumed(self) -> int:
        """How many preempted requests wait to resume."""
        return len(self._resumed)

    def add(self, item: T, group: Hashable, urgent_at_s: float | None = None) -> None:
        """Queue a new item; from `urgent_at_s` on it goes before other new ones."""
        self._groups.setdefault(group, _Group()).members[id(item)] = item
        self._group_of[id(item)] = group
        if urgent_at_s is not None:
            heapq.heappush(self._urgent, (urgent_at_s, next(self._sequence), item))

    def add_resumed(self, item: T, redo_tokens: int) -> None:
        """Queue a preempted item, before all new ones; the least to redo first."""
        key = (redo_tokens, next(self._sequence))
        insort(self._resumed, key)
        self._resumed_items[key[1]] = item
        self._resumed_key[id(item)] = key

    def discard(self, item: T) -> bool:
        """Take an item out; tell whether it was there."""
        key = self._resumed_key.pop(id(item), None)
        if key is not None:
            del self._resumed[bisect_left(self._resumed, key)]
            del self._resumed_items[key[1]]
            return True
        name = self._group_of.pop(id(item), None)
        if name is None:
            return False
        group = self._groups[name]
        del group.members[id(item)]
        if group.leader == id(item):
            group.leader = None
        if not group.members:
            del self._groups[name]
        return True

    def admitted(self, item: T) -> None:
        """Take out an item that starts now; the first of its group leads the others to the shared prefix."""
        name = self._group_of.get(id(item))
        group = None if name is None else self._groups[name]
        self.discard(item)
        if name is None or group is None:
            return
        self._turn_left -= 1
        if group.members and not group.warm:
            group.leader, group.skips = id(item), 0
        if self._turn_left <= 0 and name in self._groups:
            # Another group's turn, so that one endless prefix starves no other.
            self._groups[name] = self._groups.pop(name)
            self._turn_left = self._turn

    def prefilled(self, item: T, group: Hashable) -> None:
        """Note that an item's prompt has been computed: its group's prefix is in the cache."""
        entry = self._groups.get(group)
        if entry is not None and entry.leader in (id(item), None):
            entry.leader, entry.warm = None, True

    def head(self, size: int, now_s: float) -> list[T]:
        """Return the `size` items to look at first."""
        chosen = [self._resumed_items[sequence] for _, sequence in islice(self._resumed, size)]
        while self._urgent and id(self._urgent[0][2]) not in self._group_of:
            heapq.heappop(self._urgent)  # gone meanwhile
        if len(chosen) < size and self._urgent and self._urgent[0][0] <= now_s:
            ripe = heapq.nsmallest(size - len(chosen), self._urgent)
            chosen += [item for at_s, _, item in ripe if at_s <= now_s and id(item) in self._group_of]
        seen = {id(item) for item in chosen}
        skipped = 0
        for group in self._groups.values():
            if len(chosen) >= size or skipped >= 4 * size:
                break
            if group.leader is not None and group.skips < _LEADER_PASSES:
                group.skips += 1  # its prefix is being computed; a later pass may find it cached
                skipped += 1
                continue
            limit = size - len(chosen) if group.warm else 1
            for item in islice(group.members.values(), limit + len(seen)):
                if limit and id(item) not in seen and len(chosen) < size:
                    chosen.append(item)
                    limit -= 1
        return chosen[:size]
