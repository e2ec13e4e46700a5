"""bros's part of SGLang's `/metrics`: what `Books` counts, per class, under `sglang:bros_…`.

Made in the scheduler process, where `PROMETHEUS_MULTIPROC_DIR` is set already, on one rank of each group.
Histograms take their values as they come, a few per request; everything else is brought up to date once a
second, and when the scheduler falls idle, so a pass pays one comparison. Labels are those of SGLang's own
scheduler metrics, and `request_class` (`rt`, `be`).
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from bros_sglang.scheduler.books import Books, ClassTotals, PassTotals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bros_sglang.scheduler.status import StatusReporter

FLUSH_EVERY_S: Final = 1.0

# SGLang's own buckets of these times (sglang/srt/observability/metrics_collector.py), finer below a second.
_TTFT_BUCKETS: Final = (
    *(0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
    *(1, 2, 4, 6, 8, 10, 20, 40, 60, 120, 300, 600, 1800, 3600),
)
_TPOT_BUCKETS: Final = (
    *(0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.08),
    *(0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8),
)
_QUEUE_BUCKETS: Final = (0.001, 0.005, 0.01, 0.05, *_TTFT_BUCKETS[5:])

_CLASS_COUNTERS: Final[dict[str, tuple[str, str]]] = {
    "arrived": ("num_received_reqs_total", "Requests received."),
    "finished": ("num_finished_reqs_total", "Requests answered in full."),
    "failed": ("num_aborted_reqs_total", "Requests aborted."),
    "prompt_tokens": ("prompt_tokens_total", "Prompt tokens computed or found in the cache."),
    "cached_tokens": ("cached_tokens_total", "Prompt tokens found in the prefix cache."),
    "output_tokens": ("generation_tokens_total", "Tokens generated."),
    "ttft_told": ("num_first_tokens_total", "First tokens."),
    "ttft_met": ("num_ttft_attained_total", "First tokens within the request's TTFT target."),
    "tpot_told": ("num_paced_reqs_total", "Finished requests with more than one token."),
    "tpot_met": ("num_tpot_attained_total", "Finished requests within their TPOT target."),
    "met": ("num_slo_attained_reqs_total", "Finished requests within both targets."),
}
_PASS_COUNTERS: Final[dict[str, tuple[str, str]]] = {
    "passes": ("passes_total", "Steps whose results were processed."),
    "late_launches": ("late_launches_total", "Steps planned late, with all that had arrived."),
    "late_launches_missed": (
        "late_launches_missed_total",
        "Of these, planned so late that the device had to wait.",
    ),
    "preempted": ("num_preemptions_total", "Best-effort requests preempted for real-time ones."),
    "retracted": ("num_retractions_total", "Requests retracted because the KV pool ran out."),
    "chunk_yields": ("num_chunk_yields_total", "Best-effort prefills that gave up their chunk slot."),
    "parked_passes": ("parked_passes_total", "Steps that best-effort rows sat out, summed over rows."),
    "recomputed_tokens": ("recomputed_tokens_total", "Tokens of preempted requests computed again."),
    "restored_tokens": ("restored_tokens_total", "Tokens of preempted requests found again in the cache."),
    "loaded_back_tokens": ("loaded_back_tokens_total", "KV tokens loaded back from host memory."),
    "lent_s": ("lent_seconds_total", "Step time lent to best-effort work beside real-time (estimate)."),
    "steps_measured": ("steps_measured_total", "Steps compared with their prediction."),
    "predicted_s": ("predicted_step_seconds_total", "Predicted time of the steps measured."),
    "actual_s": ("actual_step_seconds_total", "Measured time of the steps measured."),
    "abs_error_s": ("step_error_seconds_total", "Sum of |predicted - actual| over the steps measured."),
}
_GAUGES: Final[dict[str, str]] = {
    "num_running_reqs": "Requests in the batch.",
    "num_queue_reqs": "Requests waiting.",
    "num_parked_reqs": "Requests that sit out steps with their KV kept.",
    "kv_used_tokens": "KV tokens locked by running, parked and preempted requests.",
    "kv_cached_tokens": "KV tokens in the prefix cache that may be evicted.",
}
_POOL_GAUGES: Final[dict[str, str]] = {
    "kv_pool_tokens": "KV tokens of the pool.",
    "kv_free_tokens": "KV tokens that nobody holds.",
    "kv_held_tokens": "KV tokens that preempted requests keep, and give up for real-time ones.",
}


class _Counters:
    """Prometheus counters that follow an object's growing fields."""

    def __init__(self, source: Any, children: dict[str, Any]) -> None:
        self._source = source
        self._read = attrgetter(*children)
        self._children = list(children.values())
        self._told: tuple[float, ...] = (0,) * len(children)

    def flush(self) -> None:
        values = self._read(self._source)
        for child, value, told in zip(self._children, values, self._told, strict=True):
            if value > told:
                child.inc(value - told)
        self._told = values


class BrosMetrics:
    """The metrics of one scheduler; an `Observer` of its books."""

    def __init__(self, books: Books, reporter: StatusReporter, labels: Mapping[str, Any]) -> None:
        # Imported here: prometheus_client looks for PROMETHEUS_MULTIPROC_DIR when it is imported.
        from prometheus_client import Counter, Gauge, Histogram

        names = [*labels, "request_class"]

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> dict[str, Any]:
            metric = Histogram(f"sglang:bros_{name}", text, labelnames=names, buckets=buckets)
            return {which: metric.labels(**labels, request_class=which) for which in ("rt", "be")}

        def counter(name: str, text: str) -> Any:
            return Counter(f"sglang:bros_{name}", text, labelnames=list(labels)).labels(**labels)

        def gauge(name: str, text: str, names: list[str]) -> Any:
            return Gauge(f"sglang:bros_{name}", text, labelnames=names, multiprocess_mode="mostrecent")

        self._ttft_s = histogram("time_to_first_token_seconds", "Arrival to first token.", _TTFT_BUCKETS)
        self._tpot_s = histogram(
            "time_per_output_token_seconds", "Mean time between a request's tokens.", _TPOT_BUCKETS
        )
        self._queue_s = histogram("queue_time_seconds", "Arrival to first step.", _QUEUE_BUCKETS)
        per_class = {
            field: Counter(f"sglang:bros_{name}", text, labelnames=names)
            for field, (name, text) in _CLASS_COUNTERS.items()
        }
        self._counters = [
            _Counters(
                part.totals,
                {field: c.labels(**labels, request_class=part.name) for field, c in per_class.items()},
            )
            for part in (books.rt, books.be)
        ]
        self._counters.append(
            _Counters(
                books.passes, {field: counter(name, text) for field, (name, text) in _PASS_COUNTERS.items()}
            )
        )
        gauges = {name: gauge(name, text, names) for name, text in _GAUGES.items()}
        self._gauges = {
            which: [metric.labels(**labels, request_class=which) for metric in gauges.values()]
            for which in ("rt", "be")
        }
        self._pool = [gauge(name, text, list(labels)).labels(**labels) for name, text in _POOL_GAUGES.items()]
        frontier = gauge(
            "kv_frontier_tokens", "Up to (be) or down to (rt) which token slot a class holds KV.", names
        )
        self._frontiers = [frontier.labels(**labels, request_class=which) for which in ("rt", "be")]
        targets = {
            "ttft_target_seconds": "TTFT target of requests that name none.",
            "tpot_target_seconds": "TPOT target of requests that name none.",
        }
        self._targets = [
            gauge(name, text, names).labels(**labels, request_class="rt") for name, text in targets.items()
        ]
        self._books = books
        self._reporter = reporter
        self._next_s = 0.0
        self._told_passes = -1
        books.observer = self

    def first_token(self, request_class: str, ttft_s: float, queue_s: float | None) -> None:
        """Take the time to a first token and the part of it spent waiting."""
        self._ttft_s[request_class].observe(ttft_s)
        if queue_s is not None:
            self._queue_s[request_class].observe(queue_s)

    def finished(self, request_class: str, tpot_s: float | None) -> None:
        """Take the mean time per output token of a request that ended."""
        if tpot_s is not None:
            self._tpot_s[request_class].observe(tpot_s)

    def flush_if_due(self, now_s: float, *, idle: bool) -> None:
        """Bring counters and gauges up to date once a second, and once when the scheduler falls idle."""
        if now_s < self._next_s and not (idle and self._told_passes != self._books.passes.passes):
            return
        self._next_s = now_s + FLUSH_EVERY_S
        self._told_passes = self._books.passes.passes
        for counters in self._counters:
            counters.flush()
        load = self._reporter.load()
        for which, part in (("rt", load.rt), ("be", load.be)):
            values = (part.running, part.waiting, part.parked, part.kv.running_tokens, part.kv.cached_tokens)
            _set(self._gauges[which], values)
        _set(self._pool, (load.pool_tokens, load.free_tokens, self._reporter.held_tokens()))
        _set(self._targets, self._reporter.targets_s())
        ends = self._reporter.frontier_tokens(now_s)
        if ends is not None:
            _set(self._frontiers, ends)


def _set(gauges: Sequence[Any], values: Sequence[float]) -> None:
    for gauge, value in zip(gauges, values, strict=True):
        gauge.set(value)


assert set(_CLASS_COUNTERS) == set(ClassTotals.__slots__)  # noqa: S101 (a counter without a metric)
assert set(_PASS_COUNTERS) == set(PassTotals.__slots__)  # noqa: S101
