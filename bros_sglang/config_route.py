"""`/bros/config` on SGLang's HTTP server: read the settings, change some of them while the server runs.

A change needs the server's admin key (`--admin-api-key`); it reaches every scheduler between two passes, on
the way of SGLang's own `set_internal_state`, and holds until the server ends.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bros_sglang import launch_args, seams
from bros_sglang.settings import CHANGEABLE, SettingsError, change_settings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


def add_route(manager: Any) -> None:
    """Add the routes to SGLang's app."""
    from sglang.srt.entrypoints.http_server import app
    from sglang.srt.utils.auth import AuthLevel, auth_level
    from starlette.responses import JSONResponse

    async def read(_request: Request) -> Response:
        return JSONResponse(_shown(manager))

    # With an admin key SGLang lets only that in here; without one nobody is let in below.
    @auth_level(AuthLevel.ADMIN_OPTIONAL)  # type: ignore[untyped-decorator] # SGLang is untyped
    async def change(request: Request) -> Response:
        if not manager.server_args.admin_api_key:
            why = "changing settings needs the admin key: start the server with --admin-api-key"
            return _refusal(403, why, "permission_error")
        try:
            values = json.loads(await request.body())
        except ValueError as error:
            return _refusal(400, f"the body is not JSON: {error}")
        try:
            settings = change_settings(launch_args.settings_of(manager.server_args), values)
        except SettingsError as error:
            return _refusal(400, str(error))
        if not await _tell_schedulers(manager, values):
            return _refusal(
                500, "a scheduler did not take the change over; see the server's log", "server_error"
            )
        launch_args.attach_settings(manager.server_args, settings)
        return JSONResponse(_shown(manager))

    app.add_route("/bros/config", read, methods=["GET"])
    app.add_route("/bros/config", change, methods=["POST", "PATCH"])


async def _tell_schedulers(manager: Any, values: dict[str, float]) -> bool:
    from sglang.srt.managers.io_struct import SetInternalStateReq

    request = SetInternalStateReq(rid=seams.CONFIG_RID, server_args=values)
    return all(await manager.set_internal_state(request))


def _shown(manager: Any) -> dict[str, Any]:
    settings = launch_args.settings_of(manager.server_args).model_dump(mode="json")
    return {"settings": settings, "changeable": list(CHANGEABLE)}


def _refusal(status: int, message: str, kind: str = "invalid_request_error") -> Response:
    from starlette.responses import JSONResponse

    body = {"message": message, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": body}, status_code=status)
