"""Counts of a run, as they grow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bros_sglang.cli.batch.lines import Usage


@dataclass(slots=True)
class Tokens:
    """Token totals of answers."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0  # of the prompt tokens: taken from the server's prefix cache
    told_cached: bool = False  # some answer said how many were cached

    def add(self, usage: Usage) -> None:
        """Add one answer's usage; what the server leaves out counts as 0."""
        self.prompt += usage.prompt_tokens or 0
        self.completion += usage.completion_tokens or 0
        details = usage.prompt_tokens_details
        if details is not None and details.cached_tokens is not None:
            self.cached += details.cached_tokens
            self.told_cached = True


@dataclass(slots=True)
class Tally:
    """Counts of this start (`ok` … `tokens`) beside what earlier starts had."""

    ok: int = 0
    failed: int = 0
    rejected: int = 0
    before_ok: int = 0
    before_failed: int = 0
    before_rejected: int = 0
    tokens: Tokens = field(default_factory=Tokens)  # all starts
    session_tokens: Tokens = field(default_factory=Tokens)  # this start
    sent: int = 0  # attempts that went out
    retries: Counter[str] = field(default_factory=Counter)  # by reason
    failures_in_a_row: int = 0

    @property
    def all_ok(self) -> int:
        """Answers over all starts."""
        return self.before_ok + self.ok

    @property
    def all_failed(self) -> int:
        """Requests that ended in errors.jsonl, over all starts."""
        return self.before_failed + self.failed

    @property
    def all_rejected(self) -> int:
        """Input lines that were never sent, over all starts."""
        return self.before_rejected + self.rejected

    @property
    def finished(self) -> int:
        """Everything that has its line on disk or on the way there."""
        return self.all_ok + self.all_failed + self.all_rejected

    @property
    def session_finished(self) -> int:
        """The same, of this start."""
        return self.ok + self.failed + self.rejected
