"""When a request was received and sent on to the schedulers, carried along with it.

SGLang has these times in the HTTP server's process and fields for them in the scheduler's, but leaves them
out on the way (`sglang/srt/observability/req_time_stats.py:APIServerReqTimeStats.__getstate__`). A scheduler
that was idle has no other clock that all ranks agree on: without them a request after a pause would count as
old as the pause is long.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

# Not named `…time`: SGLang would convert it with each rank's own calibration, and ranks would differ by that.
_KEY: Final = "bros_arrival"


class ArrivalTimes(NamedTuple):
    """Seconds on the monotonic clock of the HTTP server's host; 0 where not known."""

    created_s: float = 0.0
    dispatched_s: float = 0.0


def after_getstate(state: dict[str, Any], stats: Any) -> dict[str, Any]:
    """Add the times to what is sent; the first scheduler rank sends on to the others what it received."""
    times = stats.__dict__.get(_KEY) or (stats.created_time, stats.api_server_dispatch_time)
    return {**state, _KEY: tuple(times)}


def of(recv_req: Any) -> ArrivalTimes:
    """Return the times that a request brought."""
    stats = recv_req.time_stats
    carried = getattr(stats, _KEY, None)
    if carried is not None:
        return ArrivalTimes(*carried)
    return ArrivalTimes(
        getattr(stats, "created_time", 0.0) or 0.0, getattr(stats, "api_server_dispatch_time", 0.0) or 0.0
    )
