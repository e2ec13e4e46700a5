"""The best-effort tag: `custom_params: {"bros": {"class": "be", "deadline_s": …}}` joined to a body.

Servers that are not bros may refuse fields that they do not know, so by default (`--tag auto`) only a server
whose `/bros/status` says policy "bros" gets it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from bros_sglang.request_class import MAX_DEADLINE_S, TAG_KEY, RequestClass


def tagged_body(
    payload: bytes, own_params: dict[str, Any] | None, *, tag: bool, deadline_s: int | None
) -> bytes:
    """Return the body to send. `payload` is a JSON object with at least one field.

    `own_params` are the request's own `custom_params`; of a `bros` object in them only what is set here is
    overwritten. `deadline_s` counts from now; whole seconds, so that equal suffixes are built once.
    """
    if own_params is None:
        return payload[:-1] + _suffix(deadline_s) if tag else payload
    params = dict(own_params)
    if tag:
        own_tag = params.get(TAG_KEY)
        params[TAG_KEY] = {**(own_tag if isinstance(own_tag, dict) else {}), **_tag(deadline_s)}
    return payload[:-1] + b',"custom_params":' + orjson.dumps(params) + b"}"


def _tag(deadline_s: int | None) -> dict[str, Any]:
    tag: dict[str, Any] = {"class": str(RequestClass.BE)}
    if deadline_s is not None:
        tag["deadline_s"] = min(max(deadline_s, 1), int(MAX_DEADLINE_S))
    return tag


@lru_cache(maxsize=8)
def _suffix(deadline_s: int | None) -> bytes:
    return b',"custom_params":' + orjson.dumps({TAG_KEY: _tag(deadline_s)}) + b"}"
