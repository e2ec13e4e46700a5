"""Who was preempted, how much of each is still cached, who resumes first and who yields first."""

from dataclasses import dataclass
from itertools import count

from bros_sglang.request_class import RequestClass


@dataclass(slots=True)
class Preempted:
    """One preempted request that waits to resume."""

    rid: str
    request_class: RequestClass
    total_tokens: int  # prompt and generated: what must be in KV before it goes on
    kept_tokens: int  # of these, still cached; a prefix
    yieldable_tokens: int  # of the kept, what nobody else uses: what giving it up frees
    order: int  # of preemption, ascending

    @property
    def redo_tokens(self) -> int:
        """Tokens to compute again when it resumes."""
        return self.total_tokens - self.kept_tokens


class PreemptedLedger:
    """Preempted requests and the KV they still hold. Pure book-keeping: the locks are held elsewhere.

    Held KV is room for real-time requests alone: it is neither free nor evictable for anyone else, so
    admitting another best-effort request never costs a preempted one its work.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Preempted] = {}
        self._order = count()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, rid: str) -> bool:
        return rid in self._entries

    def add(
        self,
        rid: str,
        request_class: RequestClass,
        *,
        total_tokens: int,
        kept_tokens: int,
        yieldable_tokens: int,
    ) -> Preempted:
        """Enter a request that was just preempted. Raises ValueError if it is entered already."""
        if rid in self._entries:
            raise ValueError(f"request {rid} is preempted already")
        entry = Preempted(rid, request_class, total_tokens, kept_tokens, yieldable_tokens, next(self._order))
        self._entries[rid] = entry
        return entry

    def remove(self, rid: str) -> Preempted | None:
        """Strike out a request that resumes, ends or is aborted; None if it is not entered."""
        return self._entries.pop(rid, None)

    def clear(self) -> None:
        """Strike out all."""
        self._entries.clear()

    def get(self, rid: str) -> Preempted | None:
        """Look a request up."""
        return self._entries.get(rid)

    def shrunk(self, rid: str, kept_tokens: int, freed_tokens: int) -> None:
        """Note that a request's held prefix is `kept_tokens` now and that this freed `freed_tokens`."""
        entry = self._entries[rid]
        entry.kept_tokens = kept_tokens
        # What others came to share since cannot be told from what was given up: never more than is kept.
        entry.yieldable_tokens = min(max(0, entry.yieldable_tokens - freed_tokens), kept_tokens)

    def counted(self, rid: str, yieldable_tokens: int) -> None:
        """Note how many of a request's kept tokens nobody else uses now."""
        entry = self._entries[rid]
        entry.yieldable_tokens = min(yieldable_tokens, entry.kept_tokens)

    @property
    def held_tokens(self) -> int:
        """KV that a real-time request can have at once, on top of what is free or evictable."""
        return sum(entry.yieldable_tokens for entry in self._entries.values())

    def redo_tokens(self, rid: str) -> int:
        """Tokens a preempted request must compute again; 0 for a request that is not entered."""
        entry = self._entries.get(rid)
        return 0 if entry is None else entry.redo_tokens

    def resume_order(self) -> list[Preempted]:
        """Real-time first, then the least to redo first, then who was preempted first."""
        return sorted(
            self._entries.values(),
            key=lambda entry: (entry.request_class is not RequestClass.RT, entry.redo_tokens, entry.order),
        )

    def yield_order(self) -> list[Preempted]:
        """Who gives up KV first: who resumes last, so that the loss stays with few."""
        return self.resume_order()[::-1]
