"""A CPU platform for SGLang: development, tests and demos on a machine without an accelerator.

Entry point group `sglang.srt.platforms` (`sglang/srt/platforms/__init__.py`, 0.5.23). SGLang calls
`activate()` when it looks for a platform; a dotted class path claims the machine, None leaves it alone.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points

NAME = "bros-cpu"
_CLASS = "bros_sglang.cpu_platform.platform.BrosCpuPlatform"


def _accelerator_present() -> bool:
    """Tell whether torch sees a device that SGLang has a platform of its own for."""
    import torch

    if torch.cuda.is_available() or torch.xpu.is_available():
        return True
    if torch.backends.mps.is_available():
        return True
    return any(getattr(torch, name, None) is not None for name in ("npu", "musa", "hpu"))


def activate() -> str | None:
    """Return the platform class's dotted path, or None where another platform should serve.

    Chosen explicitly by `SGLANG_PLATFORM=bros-cpu`; otherwise only where no accelerator is found, SGLang's
    own CPU engine is not asked for (`SGLANG_USE_CPU_ENGINE=1`) and no other platform plugin is installed.
    """
    if os.environ.get("SGLANG_PLATFORM") == NAME:
        return _CLASS
    if os.environ.get("SGLANG_USE_CPU_ENGINE", "0") == "1":
        return None
    if any(point.name != NAME for point in entry_points(group="sglang.srt.platforms")):
        return None
    return None if _accelerator_present() else _CLASS
