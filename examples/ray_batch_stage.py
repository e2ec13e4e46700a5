"""Best-effort requests as a stage of a Ray Data pipeline.

    pip install 'bros-sglang[batch,ray]'
    python examples/ray_batch_stage.py --endpoint http://localhost:30000

Ray reads, shuffles and writes; each worker of the stage sends its blocks as `bros batch` does: tagged
best-effort, prompts that begin alike together, as many in flight as the server takes. Without an endpoint the
script starts a mock server, so that it runs anywhere.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from typing import Any

import httpx
import numpy as np
import ray

PROMPT = "Summarise in one sentence: {text}"


class SummariseStage:
    """One worker: takes blocks of rows, returns them with `answer` and `error`."""

    def __init__(self, endpoints: list[str], max_in_flight: int) -> None:
        self._endpoints = endpoints
        self._max_in_flight = max_in_flight

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, Any]:
        """Answer one block."""
        from bros_sglang.cli.batch.rows import answer_rows

        rows = [{"text": str(text)} for text in block["text"]]
        answers = answer_rows(
            rows,
            self._endpoints,
            prompt=PROMPT,
            parameters={"max_tokens": 16, "temperature": 0},
            max_concurrency=self._max_in_flight,
        )
        return {
            **block,
            "answer": np.array([answer or "" for answer, _ in answers], dtype=object),
            "error": np.array([error or "" for _, error in answers], dtype=object),
        }


@contextlib.contextmanager
def mock_server(port: int = 18_090):
    """Start the package's mock server and stop it again."""
    server = subprocess.Popen(
        [sys.executable, "-m", "bros_sglang.mock_server", "--port", str(port), "--bros"]
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{url}/health")
                break
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Run a small pipeline."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", action="append", help="bros or other OpenAI-compatible servers")
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        endpoints = options.endpoint or [stack.enter_context(mock_server())]
        ray.init(include_dashboard=False, num_cpus=max(2, options.workers), log_to_driver=False)
        stack.callback(ray.shutdown)
        texts = ray.data.from_items(
            [{"text": f"document {number} about page {number % 7}"} for number in range(options.rows)]
        )
        answered = texts.map_batches(
            SummariseStage,
            fn_constructor_kwargs={"endpoints": endpoints, "max_in_flight": 64},
            batch_size=256,
            concurrency=options.workers,
        )
        done = answered.take_all()
    failed = sum(1 for row in done if row["error"])
    print(f"{len(done)} rows, {failed} failed; the first: {done[0]['text']!r} -> {done[0]['answer']!r}")
    sys.exit(1 if failed or len(done) != options.rows else 0)


if __name__ == "__main__":
    main()
