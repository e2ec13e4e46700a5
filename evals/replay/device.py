"""A device whose events happen in virtual time."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bros_sglang.evals.replay.clock import VirtualClock


def virtual_device_module(real: ModuleType, clock: VirtualClock) -> Any:
    """Return a copy of a torch device module (`torch.cpu`) with virtual events.

    `Event.record` takes the moment at which the device will have done all it was given; `synchronize` is the
    only way that the scheduler's time moves there. Stamping results when they are launched instead would
    date result N-1 at the end of pass N under overlap scheduling.
    """

    class VirtualEvent:
        """The part of `torch.cuda.Event` that the scheduler uses."""

        __slots__ = ("done_s",)

        def __init__(self, *_: Any, **__: Any) -> None:
            self.done_s = 0.0

        def record(self, stream: Any = None) -> None:
            del stream
            self.done_s = max(clock.now_s, clock.free_s)

        def synchronize(self) -> None:
            clock.advance_to(self.done_s)

        def wait(self, stream: Any = None) -> None:
            del stream

        def query(self) -> bool:
            return clock.now_s >= self.done_s

    names = {name: getattr(real, name) for name in dir(real) if not name.startswith("__")}
    return SimpleNamespace(**{**names, "Event": VirtualEvent})
