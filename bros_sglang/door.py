"""Check a request's tag before it reaches the scheduler: a malformed one is the client's error (HTTP 400)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bros_sglang.request_class import parse_tag


def around_create_tokenized_object(
    original: Callable[..., Any], manager: Any, obj: Any, *args: Any, **kwargs: Any
) -> Any:
    """Parse the tag; TagError is a ValueError, which SGLang's servers answer with 400 and its message."""
    sampling_params = getattr(obj, "sampling_params", None)
    if isinstance(sampling_params, dict):
        parse_tag(sampling_params.get("custom_params"))
    return original(manager, obj, *args, **kwargs)
