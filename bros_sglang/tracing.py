"""Class and targets on SGLang's OpenTelemetry spans, where SGLang traces (`--enable-trace`).

A request's root span (HTTP server) and its span in the scheduler carry `bros.class`, and a real-time one's
`bros.ttft_ms` and `bros.tpot_ms`: the targets promised, the request's own or the server's.
"""

from __future__ import annotations

from typing import Any

from bros_sglang.request_class import RequestClass, Tag
from bros_sglang.settings import BrosSettings


def _attributes(request_class: RequestClass, ttft_ms: float, tpot_ms: float) -> dict[str, Any]:
    attributes: dict[str, Any] = {"bros.class": request_class.value}
    if request_class is RequestClass.RT:
        attributes |= {"bros.ttft_ms": ttft_ms, "bros.tpot_ms": tpot_ms}
    return attributes


def tell_root_span(time_stats: Any, tag: Tag, priority: int | None, settings: BrosSettings) -> None:
    """Tell a request's root span what the request is served as; without tracing nothing happens."""
    context = time_stats.trace_ctx
    if context.tracing_enable:
        targets = (tag.ttft_ms or settings.ttft_ms, tag.tpot_ms or settings.tpot_ms)
        context.trace_set_root_attrs(_attributes(settings.class_of(tag, priority), *targets))


def tell_scheduler_span(req: Any, target_share: float) -> None:
    """Tell the scheduler's span of a request (`Req`) the same."""
    context = req.time_stats.trace_ctx
    if context.tracing_enable:
        slo = req.bros.slo  # what scheduling aims at: a share of the targets
        targets = (slo.ttft_s * 1e3 / target_share, slo.tpot_s * 1e3 / target_share)
        context.trace_set_thread_attrs(_attributes(req.bros.request_class, *targets))
