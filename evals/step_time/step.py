"""What one forward pass has to do, in numbers that every step-time model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bros_sglang.evals.step_time.frontend import Frontend


@dataclass(slots=True)
class Step:
    """One forward pass: prefill rows and decode rows, which a mixed batch has both of.

    Counts are tokens or rows; nothing here depends on a device.
    """

    prefill_tokens: int = 0  # new tokens of all prefill rows
    prefill_rows: int = 0
    prefill_context_tokens: int = 0  # KV tokens that the prefill rows read: cached prefix and new tokens
    attention_pairs: int = 0  # query-key pairs of the prefill rows, causal mask applied
    decode_rows: int = 0
    decode_context_tokens: int = 0  # KV tokens that the decode rows read
    load_back_tokens: int = 0  # KV tokens that come from host memory for this pass

    def add_prefill(self, new_tokens: int, prefix_tokens: int) -> None:
        """Add one prefill row of `new_tokens` behind `prefix_tokens` that are in the KV cache already."""
        self.prefill_rows += 1
        self.prefill_tokens += new_tokens
        self.prefill_context_tokens += prefix_tokens + new_tokens
        self.attention_pairs += new_tokens * prefix_tokens + new_tokens * (new_tokens + 1) // 2


class StepTimeModel(Protocol):
    """Seconds for one pass; deterministic and positive."""

    name: str
    blocking: bool  # the device is the CPU itself: launching a pass returns when it is done
    frontend: Frontend  # what lies between client and scheduler; nothing where it is not known

    def step_s(self, step: Step) -> float:
        """Return the seconds that the device needs for `step`."""

    def describe(self) -> dict[str, Any]:
        """Return the constants, JSON-ready, for the result file."""
