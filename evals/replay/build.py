"""Build SGLang's scheduler in this process, as its own scheduler process does, without the process."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """What the replayed server is started with."""

    model_path: Path
    pool_tokens: int
    max_running_requests: int
    context_length: int
    page_size: int = 1
    load_format: str = "dummy"
    skip_tokenizer: bool = True
    random_seed: int = 0
    flags: dict[str, Any] = field(default_factory=dict)  # of `sglang serve`, without the dashes in front

    def command_line(self) -> list[str]:
        """Return the arguments of `sglang serve`; `flags` win."""
        base: dict[str, Any] = {
            "model-path": self.model_path,
            "tokenizer-path": self.model_path,
            "skip-tokenizer-init": self.skip_tokenizer,
            "load-format": self.load_format,
            "dtype": "float32",
            "device": "cpu",
            "max-total-tokens": self.pool_tokens,
            "max-running-requests": self.max_running_requests,
            "context-length": self.context_length,
            "page-size": self.page_size,
            "random-seed": self.random_seed,
            "watchdog-timeout": 1e9,
            "log-level": "error",
        }
        return flags_as_arguments({**base, **self.flags})


def flags_as_arguments(flags: dict[str, Any]) -> list[str]:
    """Return `{"page-size": 16, "enable-mixed-chunk": True}` as command-line arguments.

    True gives the flag alone, False and None leave it out, a list gives all its items.
    """
    arguments: list[str] = []
    for name, value in flags.items():
        if value is None or value is False:
            continue
        arguments.append(f"--{name}")
        if value is not True:
            arguments.extend(str(item) for item in (value if isinstance(value, list) else [value]))
    return arguments


class SchedulerBuildError(RuntimeError):
    """The scheduler that came up is not the one that was asked for."""


def build_scheduler(config: SchedulerConfig) -> Any:
    """Return a `Scheduler` ready to run; one per process.

    The order is that of `sglang/srt/managers/scheduler.py:run_scheduler_process` (0.5.23) without what sets
    up a process of its own: plugins, arguments, context, the plugin's own arming, Scheduler.

    Raises:
        SchedulerBuildError: SGLang changed the policy or the pool that was asked for.
    """
    from sglang.srt.managers import scheduler as scheduler_module
    from sglang.srt.plugins import load_plugins
    from sglang.srt.runtime_context import SpawnRanks, publish
    from sglang.srt.server_args import PortArgs, prepare_server_args

    load_plugins()
    try:
        server_args = prepare_server_args(config.command_line())
    except SystemExit as error:
        raise SchedulerBuildError(f"SGLang refused {' '.join(config.command_line())}: {error}") from error
    server_args.resolve_once()
    server_args.check_server_args()
    port_args = PortArgs.init_new(server_args)
    publish(server_args, role="scheduler", ranks=SpawnRanks(world_rank=0, dp_rank=None, gpu_id=0))
    _arm_plugin(server_args)  # may replace the Scheduler class in its module
    logging.getLogger("sglang").setLevel(logging.ERROR)
    scheduler = scheduler_module.Scheduler(server_args, port_args)
    if scheduler.max_total_num_tokens != config.pool_tokens // config.page_size * config.page_size:
        raise SchedulerBuildError(
            f"the pool has {scheduler.max_total_num_tokens} tokens instead of {config.pool_tokens}"
        )
    wanted = config.flags.get("schedule-policy")
    if wanted is not None and scheduler.schedule_policy != wanted:
        raise SchedulerBuildError(f"the policy is {scheduler.schedule_policy!r} instead of {wanted!r}")
    return scheduler


def _arm_plugin(server_args: Any) -> None:
    """Do what the plugin's hook on `configure_scheduler_process` does in a scheduler process."""
    from bros_sglang import launch_args, plugin

    if launch_args.is_bros(server_args):
        plugin.arm_scheduler(server_args)
