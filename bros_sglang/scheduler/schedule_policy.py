"""SGLang's SchedulePolicy, told to keep the order in which the waiting queue hands requests out."""

from __future__ import annotations

from typing import Any

from sglang.srt.managers.schedule_policy import CacheAgnosticPolicy, SchedulePolicy


class BrosSchedulePolicy(SchedulePolicy):  # type: ignore[misc] # SGLang is untyped
    """The window of a pass is ordered before it is shown; nothing is left to sort."""

    chunk_limit: int | None = None  # of the chunk in flight, set by the scheduler for each pass

    def _validate_and_adjust_policy(self, policy: str, tree_cache: Any) -> Any:  # noqa: ARG002 (SGLang's signature)
        return CacheAgnosticPolicy.FCFS

    def calc_priority(
        self,
        waiting_queue: list[Any],
        running_batch: Any = None,
        processed_tokens: int = 0,
    ) -> None:
        """Leave the order alone (see `policies/waiting.py`)."""

    def shortest_prefill_chunk_limit(
        self,
        chunked_req: Any,  # noqa: ARG002
        waiting_queue: list[Any],  # noqa: ARG002
        budget: int,  # noqa: ARG002
        page_size: int,  # noqa: ARG002
    ) -> int | None:
        """Return the step's limit for the chunk in flight (SGLang's own seam for capping it)."""
        return self.chunk_limit
