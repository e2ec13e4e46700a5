"""The client that people write themselves, to measure against: a semaphore, a task per request."""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from pathlib import Path

import aiohttp
import orjson


async def send_all(corpus: Path, url: str, concurrency: int) -> dict[str, float]:
    """Send a corpus in its order, `concurrency` at a time; returns seconds and token totals."""
    gate = asyncio.Semaphore(concurrency)
    totals = {"requests": 0, "failed": 0, "prompt": 0, "completion": 0, "cached": 0}

    async def send(session: aiohttp.ClientSession, path: str, body: bytes) -> None:
        async with gate:
            async with session.post(url + path, data=body) as response:
                answer = orjson.loads(await response.read())
            totals["requests"] += 1
            if response.status != 200:
                totals["failed"] += 1
                return
            usage = answer["usage"]
            totals["prompt"] += usage["prompt_tokens"]
            totals["completion"] += usage["completion_tokens"]
            totals["cached"] += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=3600)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        begin = time.monotonic()
        with corpus.open("rb") as file:
            lines = [orjson.loads(line) for line in file]
        await asyncio.gather(*(send(session, line["url"], orjson.dumps(line["body"])) for line in lines))
        seconds = time.monotonic() - begin
    return {**totals, "seconds": seconds}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("url")
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    figures = asyncio.run(send_all(options.corpus, options.url, options.concurrency))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures["cpu_s"] = usage.ru_utime + usage.ru_stime
    figures["peak_mib"] = usage.ru_maxrss / 1024
    print(orjson.dumps(figures).decode())


if __name__ == "__main__":
    main()
