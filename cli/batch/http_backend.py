"""An OpenAI-compatible server: connections that stay open, failures as replies."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson
from pydantic import ValidationError

from bros_sglang.cli.batch.backend import Load, ServerFacts
from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.reply import Reply, error_message, parse_retry_after
from bros_sglang.status import BrosStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBE_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 10.0
_JSON: Final = "application/json"


class HttpBackend:
    """One `--endpoint`. Needs a running event loop from `start()` on."""

    def __init__(self, endpoint: str, *, api_key: str | None, timeout_s: float) -> None:
        """Take a base URL, with or without `/v1` at its end. Raises RefusedError for what is not one."""
        if not endpoint.startswith(("http://", "https://")):
            raise RefusedError(f"--endpoint {endpoint}: must begin with http:// or https://")
        self.name = endpoint.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": _JSON}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._load_path: str | None = None  # where it tells its queue

    async def start(self) -> ServerFacts:
        """Check that an OpenAI API answers. Raises RefusedError, or ConnectionError when nobody does."""
        self._open()
        reply = await self._get("/v1/models")
        if reply.status == 0:
            raise ConnectionError(f"{self.name}: {reply.problem}")
        if reply.status in (401, 403):
            raise RefusedError(f"{self.name}: {error_message(reply)}; give --api-key or set OPENAI_API_KEY")
        models = _model_names(reply)
        if models is None:
            raise RefusedError(
                f"{self.name}: not OpenAI-compatible: GET /v1/models answered HTTP {reply.status} "
                "without a list of models"
            )
        status = await self.load_status()
        software = ""
        if status is not None:
            self._load_path = "/bros/status"
            software = f"bros-sglang {status.bros_version}, sglang {status.sglang_version}"
        else:
            loads = await self._get("/v1/loads?include=core")
            if _sum_loads(loads) is not None:
                self._load_path = "/v1/loads?include=core"
                software = f"sglang {orjson.loads(loads.body).get('version', '')}"
        is_bros = status is not None and status.policy == "bros"
        return ServerFacts(models, is_bros, software)

    async def send(self, url: str, body: bytes) -> Reply:
        """POST one request."""
        session = self._open()
        try:
            async with session.post(self.name + url, data=body) as response:
                data = await response.read()
                headers = response.headers
                status = response.status
                retry_after_s = None
                if status in (429, 503):
                    retry_after_s = parse_retry_after(headers.get("Retry-After"), time.time())
                return Reply(status, data, headers.get("x-request-id", ""), retry_after_s)
        except aiohttp.ClientConnectorError as error:
            return Reply(0, problem=f"cannot connect: {error}", unreachable=True)
        except aiohttp.ConnectionTimeoutError:
            return Reply(0, problem=f"cannot connect within {CONNECT_TIMEOUT_S:g} s", unreachable=True)
        except TimeoutError:
            return Reply(0, problem=f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Reply(0, problem=f"connection lost: {error or type(error).__name__}")

    async def is_healthy(self) -> bool:
        """Tell whether `/v1/models` answers."""
        return (await self._get("/v1/models")).status == 200

    async def load(self) -> Load | None:
        """Read the queue where the server tells it."""
        if self._load_path is None:
            return None
        if self._load_path == "/bros/status":
            status = await self.load_status()
            if status is None:
                return None
            rt, be = status.rt, status.be
            return Load(be.waiting, rt.running + be.running + be.parked, status)
        return _sum_loads(await self._get(self._load_path))

    async def load_status(self) -> BrosStatus | None:
        """Return `/bros/status`; None where the server has none."""
        reply = await self._get("/bros/status")
        if reply.status != 200:
            return None
        try:
            return BrosStatus.model_validate_json(reply.body)
        except ValidationError:
            return None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=60, socket_factory=_keepalive_socket)
            timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=timeout,
            )
        return self._session

    async def _get(self, path: str) -> Reply:
        session = self._open()
        try:
            timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)
            async with session.get(self.name + path, timeout=timeout) as response:
                return Reply(response.status, await response.read())
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Reply(0, problem=str(error) or type(error).__name__)


def _keepalive_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make a socket that notices within minutes that the other machine is gone: answers may take hours."""
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _object(reply: Reply) -> Mapping[str, Any]:
    try:
        parsed = orjson.loads(reply.body) if reply.status == 200 else None
    except orjson.JSONDecodeError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {}


def _model_names(reply: Reply) -> tuple[str, ...] | None:
    data = _object(reply).get("data")
    if not isinstance(data, list):
        return None
    return tuple(str(entry["id"]) for entry in data if isinstance(entry, dict) and "id" in entry)


def _sum_loads(reply: Reply) -> Load | None:
    """Add SGLang's `/v1/loads` up over data-parallel ranks; None for any other answer."""
    loads = _object(reply).get("loads")
    if not isinstance(loads, list) or not loads:
        return None
    try:
        waiting = sum(int(entry["num_waiting_reqs"]) for entry in loads)
        return Load(waiting, sum(int(entry["num_running_reqs"]) for entry in loads))
    except (KeyError, TypeError, ValueError):
        return None
