"""A small server that streams tokens as SGLang and OpenAI servers do, for tests of the client."""

import asyncio
from dataclasses import dataclass, field

import orjson
from aiohttp import web


@dataclass
class StreamingServer:
    """Answers /generate and /v1/completions, one token each `gap_s`; `url` is known once entered."""

    gap_s: float = 0.002
    status: int = 200
    cut_after: int | None = None  # tokens, then the connection closes
    abort: bool = False
    owner: str = "sglang"
    pool_tokens: int = 100_000
    metrics: str | None = None  # Prometheus text
    next_metrics: object = None  # called for it, where it changes
    bodies: list = field(default_factory=list)
    active: int = 0
    peak: int = 0
    flushed: int = 0
    url: str = ""

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/generate", self.generate)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/loads", self.loads)
        app.router.add_get("/metrics", self.told_metrics)
        app.router.add_post("/flush_cache", self.flush)
        app.router.add_post("/abort_request", self.flush)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *exc):
        await self.runner.cleanup()

    async def models(self, request):
        return web.json_response({"data": [{"id": "m", "owned_by": self.owner}]})

    async def loads(self, request):
        return web.json_response({"loads": [{"max_total_num_tokens": self.pool_tokens}]})

    async def told_metrics(self, request):
        text = self.next_metrics() if self.next_metrics else self.metrics
        return web.Response(text=text) if text else web.Response(status=404)

    async def flush(self, request):
        self.flushed += 1
        return web.Response()

    async def generate(self, request):
        body = orjson.loads(await request.read())
        total = body["sampling_params"]["max_new_tokens"]
        every = body["sampling_params"].get("stream_interval", 1)

        def event(tokens):
            reason = {"type": "abort", "message": "no room"} if self.abort else {"type": "length"}
            finish = reason if tokens == total else None
            meta = {
                "completion_tokens": tokens,
                "cached_tokens": 3,
                "num_retractions": 1,
                "finish_reason": finish,
            }
            return {"text": "x" * tokens, "meta_info": meta}

        return await self.stream(request, body, total, every, event)

    async def completions(self, request):
        body = orjson.loads(await request.read())

        def event(tokens):
            return {"choices": [{"text": "x"}], "usage": {"completion_tokens": tokens}}

        return await self.stream(request, body, body["max_tokens"], 1, event)

    async def stream(self, request, body, total, every, event):
        self.bodies.append(body)
        if self.status != 200:
            return web.json_response({"error": {"message": "broken"}}, status=self.status)
        self.active += 1
        self.peak = max(self.peak, self.active)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            for tokens in range(1, total + 1):
                await asyncio.sleep(self.gap_s)
                if self.cut_after is not None and tokens > self.cut_after:
                    break
                if tokens in (1, total) or tokens % every == 0:
                    await response.write(b"data: " + orjson.dumps(event(tokens)) + b"\n\n")
            else:
                await response.write(b"data: [DONE]\n\n")
        except ConnectionError:
            pass  # the client cut it off at the end of its run
        finally:
            self.active -= 1
        return response
