"""`GET /bros/status` on SGLang's HTTP server."""

from __future__ import annotations

import time
from typing import Any, Final

from bros_sglang import launch_args, seams
from bros_sglang._version import __version__
from bros_sglang.settings import BrosSettings
from bros_sglang.status import BrosStatus, PolicyConfig, SchedulerStatus, Targets

# Settings that PolicyConfig names itself.
_NAMED: Final = (
    *("ttft_ms", "tpot_ms", "default_class", "be_floor_share", "fixed_margin_ms"),
    *("max_queued_rt", "max_queued_be"),
)


def add_route(manager: Any) -> None:
    """Add the route to SGLang's app. It needs the server's API key where the server has one."""
    from fastapi import Response
    from sglang.srt.entrypoints.http_server import app

    started_s = time.monotonic()

    async def bros_status() -> Response:
        status = await read_status(manager, time.monotonic() - started_s)
        return Response(status.model_dump_json(), media_type="application/json")

    app.add_api_route(
        "/bros/status",
        bros_status,
        methods=["GET"],
        summary="What the bros policy does now, and did in the last minute.",
        response_model=None,
    )


async def read_status(manager: Any, uptime_s: float) -> BrosStatus:
    """Ask every scheduler, on the way of SGLang's own internal-state request (one answer per DP rank)."""
    from sglang.srt.managers.io_struct import GetInternalStateReq

    manager.auto_create_handle_loop()
    answers = await manager.get_internal_state_communicator(GetInternalStateReq(rid=seams.STATUS_RID))
    schedulers = [SchedulerStatus.model_validate(answer.internal_state) for answer in answers]
    return BrosStatus(
        bros_version=__version__,
        sglang_version=seams.installed_version(),
        policy=launch_args.POLICY,
        model=manager.served_model_name,
        time_s=time.time(),
        uptime_s=uptime_s,
        config=policy_config(launch_args.settings_of(manager.server_args)),
        schedulers=sorted(schedulers, key=lambda scheduler: scheduler.dp_rank),
    )


def policy_config(settings: BrosSettings) -> PolicyConfig:
    """Show the settings in force."""
    values = settings.model_dump(mode="json")
    return PolicyConfig(
        default_class=settings.default_class.value,
        rt_targets=Targets(ttft_ms=settings.ttft_ms, tpot_ms=settings.tpot_ms),
        be_floor_share=settings.be_floor_share,
        slack_margin_ms=settings.fixed_margin_ms,
        max_queued_rt=settings.max_queued_rt,
        max_queued_be=settings.max_queued_be,
        # Tables (keys, models) are shown by /bros/config; here, how many entries they have.
        other={
            name: len(value) if isinstance(value, dict) else value
            for name, value in values.items()
            if name not in _NAMED
        },
    )
