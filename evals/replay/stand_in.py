"""Put the virtual clock into the modules that make up the scheduler."""

from __future__ import annotations

import sys
import time as real_time
from types import BuiltinFunctionType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bros_sglang.evals.replay.clock import VirtualTime

PACKAGES = ("sglang", "bros_sglang")
# Threads that watch the process itself, and this package, which measures what a replay really costs.
REAL_TIME_MODULES = (
    "sglang.srt.utils.watchdog",
    "sglang.srt.observability.cpu_monitor",
    "bros_sglang.evals",
    "bros_sglang.cli",
)


def _keeps_real_time(name: str) -> bool:
    return any(name == kept or name.startswith(f"{kept}.") for kept in REAL_TIME_MODULES)


def _modules() -> list[ModuleType]:
    found = []
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in PACKAGES and module is not None and not _keeps_real_time(name):
            found.append(module)
    return found


def install(virtual: VirtualTime) -> int:
    """Replace the module `time` and its functions in every loaded module of SGLang and bros.

    Returns how many names were replaced. A module that is imported later has to be caught by calling this
    again: `real_time_left` says whether one slipped through.
    """
    replaced = 0
    for module in _modules():
        for attribute, value in list(vars(module).items()):
            if value is real_time:
                setattr(module, attribute, virtual)
                replaced += 1
            elif isinstance(value, BuiltinFunctionType) and value.__module__ == "time":
                counterpart = virtual.replacement(value)
                if counterpart is not None:
                    setattr(module, attribute, counterpart)
                    replaced += 1
    return replaced


def real_time_left() -> list[str]:
    """Name the modules of SGLang and bros that still hold the real `time`: none, after `install`."""
    return sorted(
        module.__name__ for module in _modules() if any(value is real_time for value in vars(module).values())
    )
