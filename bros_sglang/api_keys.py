"""API keys: those that the config lists are let in beside SGLang's one (`--api-key`).

The config holds SHA-256 of keys, so that whoever reads it or `/bros/config` cannot use them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final

from bros_sglang import launch_args

_ASK_THEMSELVES: Final[set[tuple[str, str]]] = set()  # (method, path)


def bearer(authorization: str | None) -> str:
    """Return the API key in an `Authorization` header; "" without one."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def key_hash(authorization: str | None) -> str:
    """Return the SHA-256 of the API key in an `Authorization` header; "" without one."""
    key = bearer(authorization)
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def asks_itself(path: str, methods: Iterable[str]) -> None:
    """Leave asking for a key to a route: SGLang's own refusal has not the form of OpenAI's API."""
    _ASK_THEMSELVES.update((method, path) for method in methods)


def letting_in(manager: Any) -> Callable[..., Any]:
    """Return a hook around SGLang's decision; its routes that ask for the admin key stay closed."""

    def around_decide_request_auth(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        decision = original(*args, **kwargs)
        if decision.allowed:
            return decision
        from sglang.srt.utils.auth import AuthDecision, AuthLevel

        if (kwargs["method"], kwargs["path"]) in _ASK_THEMSELVES:
            return AuthDecision(allowed=True)
        keys = launch_args.settings_of(manager.server_args).keys
        normal = kwargs["auth_level"] == AuthLevel.NORMAL
        if normal and keys and key_hash(kwargs["authorization_header"]) in keys:
            return AuthDecision(allowed=True)
        return decision

    return around_decide_request_auth
