"""Find out what answers at a URL (interface, model, pool), and put it back to a clean state."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import httpx

from bros_sglang.evals.live.dialect import Dialect, OpenAIDialect, SGLangDialect
from bros_sglang.evals.live.errors import LiveError

IDLE_TIMEOUT_S = 30.0


def _get(url: str) -> Any:
    with contextlib.suppress(httpx.HTTPError, ValueError):
        reply = httpx.get(url, timeout=10.0, trust_env=False)
        if reply.status_code == httpx.codes.OK:
            return reply.json()
    return None


def identify(url: str, api: str = "auto") -> Dialect:
    """Return the dialect to speak with a server; `api` is auto, sglang or openai.

    vLLM serves low priorities first, so its dialect turns them round. Raises LiveError where nothing answers.
    """
    url = url.rstrip("/")
    models = (_get(f"{url}/v1/models") or {}).get("data") or []
    owner = str(models[0].get("owned_by", "")).lower() if models else ""
    if api == "sglang" or (api == "auto" and owner == "sglang"):
        return SGLangDialect()
    if not models:
        raise LiveError(f"nothing answers at {url}/v1/models: is the server up, and the URL its root?")
    return OpenAIDialect(model=models[0]["id"], low_first="vllm" in owner)


def pool_tokens(url: str) -> int | None:
    """Return the KV pool's size of an SGLang server, or None where the server does not say."""
    loads = (_get(f"{url.rstrip('/')}/v1/loads") or {}).get("loads") or []
    sizes = [load.get("max_total_num_tokens") for load in loads]
    return max((size for size in sizes if isinstance(size, int)), default=None)


def drain(url: str) -> None:
    """Abort what is left on an SGLang server and wait until it is idle; its cache stays as it is."""
    url = url.rstrip("/")
    give_up = time.monotonic() + IDLE_TIMEOUT_S
    with contextlib.suppress(httpx.HTTPError), httpx.Client(timeout=10.0, trust_env=False) as client:
        while client.post(f"{url}/abort_request", json={"abort_all": True}).status_code == httpx.codes.OK:
            loads = (_get(f"{url}/v1/loads") or {}).get("loads") or []
            if not any(load.get("num_running_reqs") or load.get("num_waiting_reqs") for load in loads):
                return
            if time.monotonic() > give_up:
                raise LiveError(f"{url} did not become idle within {IDLE_TIMEOUT_S:.0f} s after the run")
            time.sleep(0.1)


def settle(url: str) -> None:
    """Abort what is left on an SGLang server and empty its cache.

    vLLM drops what a client no longer waits for by itself, and empties its cache where it runs with
    VLLM_SERVER_DEV_MODE=1; any other server is left as it is.
    """
    url = url.rstrip("/")
    give_up = time.monotonic() + IDLE_TIMEOUT_S
    with contextlib.suppress(httpx.HTTPError), httpx.Client(timeout=10.0, trust_env=False) as client:
        if client.post(f"{url}/abort_request", json={"abort_all": True}).status_code != httpx.codes.OK:
            client.post(f"{url}/reset_prefix_cache")
            return
        # The cache is flushed only when nothing runs any more.
        while client.post(f"{url}/flush_cache").status_code != httpx.codes.OK:
            if time.monotonic() > give_up:
                raise LiveError(f"{url} did not become idle within {IDLE_TIMEOUT_S:.0f} s after the run")
            time.sleep(0.2)
