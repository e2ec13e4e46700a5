"""What this installation is and would run: the facts behind `bros doctor`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bros_sglang import seams
from bros_sglang._version import __version__
from bros_sglang.refusals import REFUSALS


class Inspection(BaseModel):
    """Facts of one installation; `problems` is empty where bros can run."""

    bros_version: str
    sglang_version: str
    supported_sglang: str
    python_version: str
    torch_version: str
    plugin_registered: bool
    launch_shim_installed: bool
    platform: str  # class that SGLang chose
    scheduler: str
    schedule_policy: str
    prefill_adder: str
    allocators: dict[str, str]  # by page size
    radix_cache: str
    seams_checked: int
    refused_flags: list[str]
    problems: list[str]


def _version_of(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _class_name(obj: Any) -> str:
    kind = obj if isinstance(obj, type) else type(obj)
    return f"{kind.__module__}.{kind.__qualname__}"


def _shim_installed() -> bool:
    import site
    import sysconfig

    folders = {sysconfig.get_paths()["purelib"], *site.getsitepackages()}
    return any((Path(folder) / "bros_sglang_launch.pth").exists() for folder in folders)


def inspect_installation() -> Inspection:
    """Collect the facts; imports SGLang (some seconds) and starts nothing."""
    problems = seams.missing_seams()
    plugin_registered = any(point.name == "bros" for point in entry_points(group="sglang.srt.plugins"))
    if not plugin_registered:
        problems.append(
            "the plugin is not registered with SGLang: install the package (pip install bros-sglang)"
        )
    names = dict.fromkeys(
        ("platform", "scheduler", "schedule_policy", "prefill_adder", "radix_cache"), "unknown"
    )
    allocators: dict[str, str] = {}
    if not problems:
        from sglang.srt.platforms import current_platform

        from bros_sglang.memory.allocator import BidirectionalTokenToKVPoolAllocator
        from bros_sglang.memory.paged_allocator import BidirectionalPagedTokenToKVPoolAllocator
        from bros_sglang.memory.radix_cache import BrosRadixCache
        from bros_sglang.scheduler.prefill_adder import BrosPrefillAdder
        from bros_sglang.scheduler.schedule_policy import BrosSchedulePolicy
        from bros_sglang.scheduler.scheduler import BrosScheduler

        names = {
            "platform": _class_name(current_platform),
            "scheduler": _class_name(BrosScheduler),
            "schedule_policy": _class_name(BrosSchedulePolicy),
            "prefill_adder": _class_name(BrosPrefillAdder),
            "radix_cache": _class_name(BrosRadixCache),
        }
        allocators = {
            "page size 1": _class_name(BidirectionalTokenToKVPoolAllocator),
            "larger pages": _class_name(BidirectionalPagedTokenToKVPoolAllocator),
        }
    return Inspection(
        bros_version=__version__,
        sglang_version=seams.installed_version(),
        supported_sglang=seams.SUPPORTED_RANGE,
        python_version=platform.python_version(),
        torch_version=_version_of("torch"),
        plugin_registered=plugin_registered,
        launch_shim_installed=_shim_installed(),
        allocators=allocators,
        seams_checked=len(seams.SEAMS),
        refused_flags=[item.flag for item in REFUSALS],
        problems=problems,
        **names,
    )
