"""The load generator: open-loop arrivals and closed-loop seats on one asyncio loop, a record per request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np

from bros_sglang.evals.live.dialect import Progress, split_events
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.state import StateSampler
from bros_sglang.evals.metrics.record import RequestRecord, TokenTimes
from bros_sglang.evals.metrics.run import Run, RunFacts
from bros_sglang.request_class import RequestClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bros_sglang.evals.live.dialect import Dialect
    from bros_sglang.evals.workloads.request import Workload, WorkloadRequest

# So many failures in a row, with no token between them, and the server is taken for gone.
MAX_FAILURES = 32
FAILURE_PAUSE_S = 0.2  # a closed-loop seat whose request failed waits this long, so that it never spins


@dataclass(frozen=True)
class LoadPlan:
    """What to send and for how long.

    A warm-up runs before the measured part and is left out of the figures.
    """

    rt: Workload | None
    be: Workload | None
    seconds: float
    warmup_s: float = 0.0
    grace_s: float = 20.0  # for RT requests in flight at the end; BE stays on until they are done

    @property
    def end_s(self) -> float:
        """When arrivals stop, on the run's clock."""
        return self.warmup_s + self.seconds


@dataclass(slots=True)
class LoadState:
    """What a progress display may want to know while the load runs."""

    elapsed_s: float = 0.0
    rt_sent: int = 0
    rt_done: int = 0
    be_done: int = 0
    failed: int = 0
    be_tokens: int = 0  # prompts with a first token, and output
    ttft_s: list[float] = field(default_factory=list)  # of RT, in order of their first tokens


class LoadGenerator:
    """Send one plan to one server. Use once."""

    def __init__(self, url: str, dialect: Dialect, plan: LoadPlan) -> None:
        self._url = url.rstrip("/") + dialect.path
        self._dialect = dialect
        self._plan = plan
        self._records: list[RequestRecord] = []
        self._lags_s: list[float] = []
        self._start = 0.0
        self._failures = 0
        self._last_error = ""
        self._gone = asyncio.Event()
        key = os.environ.get("OPENAI_API_KEY")
        self._auth = {"Authorization": f"Bearer {key}"} if key else {}
        self._sampler = StateSampler(url, self._auth, self._now_s)
        self.state = LoadState()

    def _now_s(self) -> float:
        return time.perf_counter() - self._start

    async def run(self, on_tick: Callable[[LoadState], None] | None = None, tick_s: float = 0.5) -> Run:
        """Send the load and return its run; policy and targets are the caller's to fill in.

        Raises LiveError when the server stops answering.
        """
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        gc.collect()
        gc.freeze()  # a full collection would stall the client for longer than the latencies it measures
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                return await self._measured(session, on_tick, tick_s)
        finally:
            gc.unfreeze()

    async def _measured(
        self, session: aiohttp.ClientSession, on_tick: Callable[[LoadState], None] | None, tick_s: float
    ) -> Run:
        plan = self._plan
        rt_bodies = _prepared(plan.rt, self._dialect)
        await self._sampler.find(session)
        cpu_start_s = time.process_time()
        self._start = time.perf_counter()
        rt = asyncio.create_task(self._send(session, plan.rt, rt_bodies))
        be = asyncio.create_task(self._send(session, plan.be, {}))
        gone: asyncio.Task[Any] = asyncio.create_task(self._gone.wait())
        ticker = asyncio.create_task(self._tick(on_tick, tick_s))
        sampler = asyncio.create_task(self._sampler.run(session))
        only_be = plan.rt is None
        try:
            await asyncio.wait({gone}, timeout=plan.end_s - self._now_s())
            cpu_share = (time.process_time() - cpu_start_s) / max(self._now_s(), 1e-9)
            if not only_be and not gone.done():
                await asyncio.wait({rt, gone}, timeout=plan.grace_s, return_when=asyncio.FIRST_COMPLETED)
            if self._gone.is_set():
                raise LiveError(
                    f"{self._url}: {MAX_FAILURES} requests in a row failed, the last with: {self._last_error}"
                )
            for task in (rt, be):
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            tasks: list[asyncio.Task[Any]] = [rt, be, gone, ticker, sampler]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if on_tick is not None:
            self.state.elapsed_s = self._now_s()
            on_tick(self.state)
        return self._run_of(cpu_share)

    def _run_of(self, cpu_share: float) -> Run:
        lags, sampler = np.array(self._lags_s or [0.0]), self._sampler
        client = {
            "cpu_share": cpu_share,  # of one core, while requests arrived
            "lag_ms_p99": float(np.percentile(lags, 99)) * 1000.0,  # arrivals sent late
        }
        facts = RunFacts(
            policy="",
            start_s=self._plan.warmup_s,
            end_s=self._plan.end_s,
            wall_s=self._now_s(),
            clock_zero_s=self._start,
            passes=sampler.counted("passes"),
            recomputed_tokens=sampler.counted("recomputed_tokens"),
            loaded_back_tokens=sampler.counted("loaded_back_tokens"),
            preemptions=sampler.counted("preemptions"),
            knows_preemptions=self._dialect.tells_preemptions,
            samples=sampler.samples,
            extra={"client": client, "server_state": {"from": sampler.source}},
        )
        records = sorted(self._records, key=lambda record: (record.arrival_s, record.rid))
        return Run(records, facts)

    async def _tick(self, on_tick: Callable[[LoadState], None] | None, tick_s: float) -> None:
        while on_tick is not None:
            await asyncio.sleep(tick_s)
            self.state.elapsed_s = self._now_s()
            on_tick(self.state)

    async def _send(
        self, session: aiohttp.ClientSession, workload: Workload | None, bodies: dict[str, bytes]
    ) -> None:
        if workload is None:
            return
        async with asyncio.TaskGroup() as tasks:
            if workload.closed_loop is not None:
                requests = iter(workload)
                for _ in range(workload.closed_loop):
                    tasks.create_task(self._seat(session, requests))
                return
            for request in workload:
                if request.arrival_s >= self._plan.end_s:
                    break
                if (early_s := request.arrival_s - self._now_s()) > 0:
                    await asyncio.sleep(early_s)
                self._lags_s.append(self._now_s() - request.arrival_s)
                body = bodies.pop(request.rid, None) or self._dialect.body(request)
                tasks.create_task(self._one(session, request, body, request.arrival_s))

    async def _seat(self, session: aiohttp.ClientSession, requests: Iterator[WorkloadRequest]) -> None:
        for request in requests:
            if not await self._one(session, request, self._dialect.body(request), self._now_s()):
                await asyncio.sleep(FAILURE_PAUSE_S)

    async def _one(
        self, session: aiohttp.ClientSession, request: WorkloadRequest, body: bytes, arrival_s: float
    ) -> bool:
        """Send one request and record it, also when it fails or is cut off; tell whether it was served."""
        times = TokenTimes(arrival_s, request.ttft_ms, request.tpot_ms)
        progress = Progress()
        is_rt = request.request_class is RequestClass.RT
        self.state.rt_sent += is_rt
        try:
            await self._stream(session, request, body, times, progress)
            if not progress.done and progress.error is None:
                progress.error = "the stream ended before the answer did"
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            progress.error = f"{type(error).__name__}: {error}"
        finally:  # cancelled included: then it is in flight
            served = progress.done and progress.error is None
            self._records.append(
                _record(request, arrival_s, times, progress, self._now_s() if served else None)
            )
        self.state.rt_done += is_rt and served
        self.state.be_done += (not is_rt) and served
        if not served:
            self._note_failure(progress.error or "")
        return served

    async def _stream(
        self,
        session: aiohttp.ClientSession,
        request: WorkloadRequest,
        body: bytes,
        times: TokenTimes,
        progress: Progress,
    ) -> None:
        headers = {"Content-Type": "application/json", **self._auth}
        async with session.post(self._url, data=body, headers=headers) as response:
            if response.status != 200:
                text = (await response.text())[:300]
                progress.error = f"HTTP {response.status}: {text}"
                return
            buffer = bytearray()
            async for chunk in response.content.iter_any():
                now_s = self._now_s()
                buffer += chunk
                for event in split_events(buffer):
                    self._dialect.read(event, progress)
                new = progress.tokens - times.generated
                if new > 0:
                    self._note_tokens(request, times, now_s, new)
                    times.add(now_s, new)

    def _note_tokens(self, request: WorkloadRequest, times: TokenTimes, now_s: float, new: int) -> None:
        self._failures = 0
        if request.request_class is RequestClass.BE:
            self.state.be_tokens += new + (request.prompt_tokens if times.generated == 0 else 0)
        elif times.generated == 0:
            self.state.ttft_s.append(now_s - times.arrival_s)

    def _note_failure(self, error: str) -> None:
        self.state.failed += 1
        self._failures += 1
        self._last_error = error
        if self._failures >= MAX_FAILURES:
            self._gone.set()


def _prepared(workload: Workload | None, dialect: Dialect) -> dict[str, bytes]:
    # Known beforehand: encoded before the clock starts, so that the client has its core for the streams.
    if workload is None or workload.closed_loop is not None:
        return {}
    return {request.rid: dialect.body(request) for request in workload}


def _record(
    request: WorkloadRequest, arrival_s: float, times: TokenTimes, progress: Progress, finish_s: float | None
) -> RequestRecord:
    return RequestRecord(
        rid=request.rid,
        request_class=request.request_class,
        arrival_s=arrival_s,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        generated_tokens=times.generated,
        first_token_s=times.first_s,
        last_token_s=times.last_s,
        finish_s=finish_s,
        max_gap_s=times.max_gap_s,
        on_time_tokens=times.on_time_tokens,
        cached_tokens=progress.cached_tokens,
        preemptions=progress.preemptions,
        ttft_ms=request.ttft_ms,
        tpot_ms=request.tpot_ms,
        error=progress.error,
    )


def run_load(
    url: str, dialect: Dialect, plan: LoadPlan, on_tick: Callable[[LoadState], None] | None = None
) -> Run:
    """Run a plan to its end on a fresh event loop (uvloop where it is installed)."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop

    async def main() -> Run:
        return await LoadGenerator(url, dialect, plan).run(on_tick)

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())
