"""What bros knows of one request: class, targets, and what became of it so far."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from bros_sglang import arrival_times
from bros_sglang.policies.slack import Slo, first_token_due
from bros_sglang.request_class import RequestClass, Tag, TagError, parse_tag
from bros_sglang.scheduler.books import Report
from bros_sglang.settings import BrosSettings

# Prompts that agree on so many leading tokens are taken to share a prefix worth computing once.
GROUP_TOKENS = 128


@dataclass(slots=True)
class ReqState:
    """The bros side of a scheduler request (`Req.bros`). Times on the agreed clock, seconds."""

    request_class: RequestClass
    slo: Slo
    arrival_s: float
    due_s: float  # of the first token; of the next one after a real-time request lost its seat
    group: Hashable  # best-effort requests with equal groups share a prompt prefix
    urgent_at_s: float | None = None  # when a best-effort request with a completion window moves up
    first_token_s: float | None = None
    next_due_s: float = float("inf")  # of a running real-time request's next token, as of the last plan
    preemptions: int = 0
    parked_passes: int = 0
    on_floor: bool = False  # let in by the floor share: real-time admission takes no room from it
    shared_tokens: int = 0  # cached by others when it was first admitted: its end does not give them back
    quantile: float = 0.5  # where its output length is taken to lie among its like, 0 to 1
    finished: bool = False  # it was counted among the finished
    warmed: bool = False  # its prompt was computed once, and its group was told
    report: Report = field(default_factory=Report)  # for status and metrics; nothing decides by it

    @property
    def is_rt(self) -> bool:
        """Whether the request is real-time."""
        return self.request_class is RequestClass.RT

    @classmethod
    def internal(cls, settings: BrosSettings, now_s: float, rid: str) -> ReqState:
        """Make the state of a request that the engine made for itself (a health check)."""
        slo = Slo(settings.ttft_ms / 1e3, settings.tpot_ms / 1e3)
        return cls(RequestClass.RT, slo, now_s, first_token_due(now_s, slo), rid)


def build_state(recv_req: Any, settings: BrosSettings, now_s: float) -> ReqState:
    """Make the state of a request that arrives; a malformed tag (checked at the door) counts as none.

    The arrival is the time at which the HTTP server received the request, where that is known and plausible
    (same host, same monotonic clock), otherwise now.
    """
    try:
        tag = parse_tag(getattr(recv_req.sampling_params, "custom_params", None))
    except TagError:
        tag = Tag()
    request_class = settings.class_of(tag, recv_req.priority)
    aim = settings.target_share / 1e3
    slo = Slo((tag.ttft_ms or settings.ttft_ms) * aim, (tag.tpot_ms or settings.tpot_ms) * aim)
    created_s = arrival_times.of(recv_req).created_s
    arrival_s = created_s if 0.0 < now_s - created_s < 60.0 else now_s
    group: Hashable = recv_req.rid
    if request_class is RequestClass.BE and len(recv_req.input_ids) > GROUP_TOKENS:
        group = (recv_req.extra_key, bytes(memoryview(recv_req.input_ids)[:GROUP_TOKENS]))
    # A completion window counts as near once half of it is gone.
    urgent_at_s = None if tag.deadline_s is None else arrival_s + tag.deadline_s / 2
    return ReqState(request_class, slo, arrival_s, first_token_due(arrival_s, slo), group, urgent_at_s)
