"""Keep run.json up to date while a run goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bros_sglang.cli.batch.run_record import (
    Counts,
    PrefixGrouping,
    State,
    TokenTotals,
    timestamp,
    update_session,
)

if TYPE_CHECKING:
    from bros_sglang.cli.batch.corpus import Corpus
    from bros_sglang.cli.batch.prefix_order import PrefixOrder
    from bros_sglang.cli.batch.preparation import Prepared
    from bros_sglang.cli.batch.tally import Tally


class RecordBook:
    """Keeps run.json up to date."""

    def __init__(
        self, prepared: Prepared, corpus: Corpus, order: PrefixOrder, tally: Tally, start_s: float
    ) -> None:
        self._record, self._path = prepared.record, prepared.folder.record
        self._corpus, self._order, self._tally, self._start_s = corpus, order, tally, start_s

    def update(self, *, ended: bool) -> None:
        """Bring the figures up to date."""
        record, tally, tokens = self._record, self._tally, self._tally.tokens
        total = self._corpus.records if ended else None
        record.counts = Counts(
            total=total, ok=tally.all_ok, failed=tally.all_failed, rejected=tally.all_rejected
        )
        cached = tokens.cached if tokens.told_cached else None
        record.tokens = TokenTotals(prompt=tokens.prompt, completion=tokens.completion, cached=cached)
        session = record.sessions[-1]
        update_session(session, tally, time.monotonic() - self._start_s)
        if self._order.shared_after:
            session.prefix_grouping = PrefixGrouping(
                in_input_order=round(self._order.shared_before, 4), as_sent=round(self._order.shared_after, 4)
            )

    def write(self, *, ended: bool = False) -> None:
        """Write run.json. Raises OSError."""
        self.update(ended=ended)
        self._record.write(self._path)

    def close(self, state: State, reason: str | None) -> None:
        """Note how this start ended; a disk that is full keeps what it has."""
        session = self._record.sessions[-1]
        session.ended, session.state, session.reason = timestamp(), state, reason
        self._record.state, self._record.reason = state, reason
        try:
            self._record.write(self._path)
        except OSError:
            return
