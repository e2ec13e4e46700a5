"""Count the calls in which the host waits for the GPU, by torch's own sync debug mode."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MESSAGE = "called a synchronizing"  # of torch/csrc/cuda: "called a synchronizing CUDA operation"


class SyncCounter:
    """Counts waits by a name; on a CPU there are none to count."""

    def __init__(self, *, gpu: bool) -> None:
        self.gpu = gpu
        self.calls: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @contextlib.contextmanager
    def counting(self, name: str) -> Iterator[None]:
        """Count the waits of the body under a name."""
        self.calls[name] += 1
        if not self.gpu:
            yield
            return
        import torch

        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(before)
        self.waits[name] += sum(MESSAGE in str(warning.message) for warning in caught)

    def wrap(self, owner: Any, *names: str) -> None:
        """Count in methods of an object, where it has them."""
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.counting(name):
                return function(*args, **kwargs)

        return counted

    def per_call(self) -> dict[str, dict[str, float]]:
        """Return calls and waits per call, by name."""
        return {
            name: {"calls": calls, "waits_per_call": self.waits[name] / calls}
            for name, calls in sorted(self.calls.items())
        }
