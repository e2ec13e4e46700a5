"""The paper's round-robin baseline, RT and BE admitted in turn, on the stock scheduler.

arXiv 2504.09590, section 6, compares BROS with "round-robin RT/BE": the two queues take turns, each in order
of arrival. Here the stock `SchedulePolicy` keeps its place; only the order of the waiting queue that it makes
differs. Whose turn it is follows from who was admitted last.
"""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, TypeVar

from bros_sglang.request_class import RequestClass, parse_tag

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


def alternate(first: Sequence[T], second: Sequence[T]) -> list[T]:
    """Interleave two queues, `first` first; when one is empty the rest of the other follows."""
    missing = object()
    pairs = zip_longest(first, second, fillvalue=missing)
    return [item for item in chain.from_iterable(pairs) if item is not missing]  # type: ignore[misc]


def is_rt(req: Any) -> bool:
    """Tell whether an SGLang request is tagged real-time."""
    return parse_tag(req.sampling_params.custom_params).request_class is RequestClass.RT


def alternate_classes(scheduler: Any) -> None:
    """Make a stock scheduler's policy order its waiting queue by turns; `scheduler` must run `fcfs`."""
    policy = scheduler.policy
    stock_order = policy.calc_priority
    rt_first = True
    last_queue: list[Any] = []

    def calc_priority(waiting_queue: list[Any], *args: Any, **kwargs: Any) -> None:
        nonlocal rt_first, last_queue
        stock_order(waiting_queue, *args, **kwargs)  # fcfs: prefix matching, no reordering
        still_waiting = set(map(id, waiting_queue))
        admitted = [req for req in last_queue if id(req) not in still_waiting]
        if admitted:
            rt_first = not is_rt(admitted[-1])
        rt = [req for req in waiting_queue if is_rt(req)]
        be = [req for req in waiting_queue if not is_rt(req)]
        waiting_queue[:] = alternate(rt, be) if rt_first else alternate(be, rt)
        last_queue = list(waiting_queue)

    policy.calc_priority = calc_priority
