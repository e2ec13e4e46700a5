"""What a server says about itself while it is under load: requests running and waiting, KV in use.

Sources, the first that answers: `/bros/status` (per class), SGLang's `/v1/loads`, vLLM's `/metrics`. The last
two do not tell the classes apart: their samples say how many there are in all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from bros_sglang.evals.metrics.run import StateSample
from bros_sglang.status import BrosStatus

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE_S = 1.0
TIMEOUT_S = 5.0  # a server that is busy answers late; a sample that comes later says nothing any more


@dataclass(frozen=True, slots=True)
class ServerState:
    """One reading; the counters only grow while a server lives, None where it does not count."""

    sample: StateSample
    passes: int | None = None
    preemptions: int | None = None
    recomputed_tokens: int | None = None
    loaded_back_tokens: int | None = None


def read_bros_status(text: bytes) -> ServerState:
    """Read the answer of `/bros/status`. Raises ValueError where it is something else."""
    status = BrosStatus.model_validate_json(text)
    rt, be, preemptions = status.rt, status.be, status.preemptions
    return ServerState(
        StateSample(
            at_s=0.0,
            rt_tokens=rt.kv.running_tokens,
            be_tokens=be.kv.running_tokens,
            cached_tokens=rt.kv.cached_tokens + be.kv.cached_tokens,
            pool_tokens=sum(scheduler.kv.pool_tokens for scheduler in status.schedulers),
            rt_waiting=rt.waiting,
            be_waiting=be.waiting,
            rt_running=rt.running,
            be_running=be.running + be.parked,
        ),
        passes=sum(scheduler.passes_total for scheduler in status.schedulers),
        recomputed_tokens=preemptions.recomputed_tokens_total,
        loaded_back_tokens=preemptions.loaded_back_tokens_total,
    )


def read_sglang_loads(text: bytes) -> ServerState:
    """Read the answer of SGLang's `/v1/loads`. Raises ValueError where it is something else."""
    loads = _object(orjson.loads(text)).get("loads")
    if not isinstance(loads, list) or not loads:
        raise ValueError("no loads")

    def total(key: str) -> int:
        return sum(int(_object(load)[key]) for load in loads)

    return ServerState(
        StateSample.undivided(
            held_tokens=total("num_used_tokens"),
            pool_tokens=total("max_total_num_tokens"),
            waiting=total("num_waiting_reqs"),
            running=total("num_running_reqs"),
        )
    )


def read_vllm_metrics(text: bytes) -> ServerState:
    """Read vLLM's Prometheus metrics. Raises ValueError where it is something else.

    vLLM tells the share of its KV pool in use and not the pool: a pool of a million stands in for it, since
    only shares of it are reported.
    """
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            if sample.name.startswith("vllm:") and "le" not in sample.labels:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
    try:
        return ServerState(
            StateSample.undivided(
                held_tokens=round(values["vllm:kv_cache_usage_perc"] * 1e6),
                pool_tokens=1_000_000,
                waiting=int(values["vllm:num_requests_waiting"]),
                running=int(values["vllm:num_requests_running"]),
            ),
            preemptions=int(values["vllm:num_preemptions_total"]),
        )
    except KeyError as error:
        raise ValueError(f"no metric {error}") from error


SOURCES: tuple[tuple[str, Callable[[bytes], ServerState]], ...] = (
    ("/bros/status", read_bros_status),
    ("/v1/loads", read_sglang_loads),
    ("/metrics", read_vllm_metrics),
)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


class StateSampler:
    """Reads a server's state once a second while a load runs. Use once."""

    def __init__(self, url: str, headers: dict[str, str], now_s: Callable[[], float]) -> None:
        self._url, self._headers, self._now_s = url.rstrip("/"), headers, now_s
        self._read: tuple[str, Callable[[bytes], ServerState]] | None = None
        self._first: ServerState | None = None
        self._last: ServerState | None = None
        self.samples: list[StateSample] = []

    @property
    def source(self) -> str | None:
        """The path that is read; None where the server tells nothing."""
        return None if self._read is None else self._read[0]

    async def find(self, session: aiohttp.ClientSession) -> None:
        """Find out what the server tells; the first reading is what counters count from."""
        for source in SOURCES:
            self._read = source
            self._first = await self._state(session)
            if self._first is not None:
                return
        self._read = None

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Take samples until cancelled."""
        while self._read is not None:
            await asyncio.sleep(SAMPLE_S)
            state = await self._state(session)
            if state is not None:
                self._last = state
                self.samples.append(replace(state.sample, at_s=self._now_s()))

    async def _state(self, session: aiohttp.ClientSession) -> ServerState | None:
        path, read = self._read or SOURCES[0]
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with session.get(self._url + path, headers=self._headers, timeout=timeout) as response:
                if response.status != 200:
                    return None
                return read(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, TypeError, KeyError, ValidationError):
            return None

    def counted(self, name: str) -> int | None:
        """Return by how much a counter grew from the first reading to the last; None where it is not told."""
        first, last = (getattr(state, name, None) for state in (self._first, self._last))
        return None if first is None or last is None else last - first
