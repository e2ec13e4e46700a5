"""The platform class that SGLang instantiates on a machine without an accelerator."""

from __future__ import annotations

import logging
from typing import Any

import torch
from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import PlatformCapabilities, SRTPlatform

logger = logging.getLogger(__name__)


class BrosCpuPlatform(CpuDeviceMixin, SRTPlatform):  # type: ignore[misc] # SGLang is untyped
    """Plain torch on the CPU: no AMX, no Triton, no vLLM kernels, no graphs.

    `_enum` is OOT, so that SGLang takes its torch-native paths instead of those of its AMX engine.
    """

    _enum = PlatformEnum.OOT
    device_name = "cpu"
    device_type = "cpu"
    capabilities = PlatformCapabilities()

    def is_pin_memory_available(self, device: Any = None) -> bool:  # noqa: ARG002 (SGLang's signature)
        """Say that host memory cannot be pinned: there is no device to pin it for."""
        return False

    def get_device(self, device_id: int = 0) -> str:  # noqa: ARG002 (SGLang's signature)
        """Name the device as `--device` does; server arguments are resolved with it."""
        return "cpu"

    def get_default_attention_backend(self) -> str:
        """Name the attention backend (re-registered by `init_backend`)."""
        return "torch_native"

    def get_dispatch_key_name(self) -> str:
        """Select the `forward_native` variant of SGLang's fused operators."""
        return "native"

    def get_torch_profiler_activity_str(self) -> str:
        """Name what torch's profiler records of this device; `/start_profile` asks."""
        return "CPU"

    def get_torch_profiler_activity(self) -> torch.profiler.ProfilerActivity:
        """Return what `get_torch_profiler_activity_str` names."""
        return torch.profiler.ProfilerActivity.CPU

    def init_backend(self) -> None:
        """Install the query-cropped attention and the HiCache copies; called once in each worker."""
        from bros_sglang.cpu_platform import attention, hicache

        attention.register()
        hicache.repair()
        logger.warning(
            "No accelerator found: bros-cpu serves on the CPU with plain torch. "
            "This is for development, tests and demos, not for production."
        )
