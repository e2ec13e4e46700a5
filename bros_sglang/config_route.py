"""`/bros/config` on SGLang's HTTP server: read the settings, change some of them while the server runs.

A change needs the server's admin key (`--admin-api-key`); it reaches every scheduler between two passes, on
the way of SGLang's own `set_internal_state`, and holds until the server ends.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any, Final

from bros_sglang import api_keys, launch_args, seams
from bros_sglang.openai_errors import OpenAIError
from bros_sglang.settings import CHANGEABLE, SettingsError, change_settings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PATH: Final = "/bros/config"
CHANGES: Final = ("POST", "PATCH")


def add_route(manager: Any) -> None:
    """Add the routes to SGLang's app."""
    from sglang.srt.entrypoints.http_server import app
    from starlette.responses import JSONResponse

    async def read(_request: Request) -> Response:
        return JSONResponse(_shown(manager))

    one_at_a_time = asyncio.Lock()

    async def change(request: Request) -> Response:
        refused = _not_the_admin(manager.server_args.admin_api_key, request.headers.get("authorization"))
        if refused is not None:
            return refused.response()
        try:
            values = json.loads(await request.body())
        except ValueError as error:
            return OpenAIError(400, f"the body is not JSON: {error}").response()
        async with one_at_a_time:
            try:
                settings = change_settings(launch_args.settings_of(manager.server_args), values)
            except SettingsError as error:
                return OpenAIError(400, str(error), param=error.key).response()
            if not await _tell_schedulers(manager, values):
                why = "a scheduler did not take the change over; see the server's log"
                return OpenAIError(500, why, kind="server_error").response()
            launch_args.attach_settings(manager.server_args, settings)
        return JSONResponse(_shown(manager))

    app.add_route(PATH, read, methods=["GET"])
    app.add_route(PATH, change, methods=list(CHANGES))
    api_keys.asks_itself(PATH, CHANGES)


def _not_the_admin(admin_key: str | None, authorization: str | None) -> OpenAIError | None:
    """Return the answer to somebody who is not the admin, as OpenAI's API gives it."""
    if not admin_key:
        why = "changing settings needs the admin key: start the server with --admin-api-key"
        return OpenAIError(403, why, kind="permission_error")
    key = api_keys.bearer(authorization)
    if not key:
        return OpenAIError(401, "no API key: send the admin key as `Authorization: Bearer KEY`")
    if not secrets.compare_digest(key.encode(), admin_key.encode()):
        return OpenAIError(
            401, "incorrect API key: changing settings needs the admin key", code="invalid_api_key"
        )
    return None


async def _tell_schedulers(manager: Any, values: dict[str, float]) -> bool:
    from sglang.srt.managers.io_struct import SetInternalStateReq

    request = SetInternalStateReq(rid=seams.CONFIG_RID, server_args=values)
    return all(await manager.set_internal_state(request))


def _shown(manager: Any) -> dict[str, Any]:
    settings = launch_args.settings_of(manager.server_args).shown()
    return {"settings": settings, "changeable": list(CHANGEABLE)}
