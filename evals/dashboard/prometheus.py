"""A Prometheus that scrapes one server with the configuration that `bros monitoring` writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any, Self

import httpx

from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.server_process import free_port

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

START_TIMEOUT_S = 60.0
RATE_INTERVAL_S = 15  # what Grafana puts for $__rate_interval at this scrape interval: at least 4 scrapes
SCRAPE_INTERVAL_S = 2

Series = tuple[list[float], list[float]]  # Unix times, values


class Prometheus:
    """Run Prometheus (the program must be installed) from `with` to its end."""

    def __init__(self, monitoring: Path, data: Path) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise LiveError("no prometheus program: install it (Debian, Ubuntu: apt-get install prometheus)")
        path = monitoring / "prometheus.yml"
        config = path.read_text(encoding="utf-8")
        every = f"scrape_interval: {SCRAPE_INTERVAL_S}s"
        path.write_text(re.sub(r"scrape_interval: \w+", every, config), encoding="utf-8")
        port = free_port()
        self._command = [
            program,
            f"--config.file={path}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        self._log = monitoring / "prometheus.log"
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0, trust_env=False)

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 (found on PATH)
                self._command, stdout=log, stderr=subprocess.STDOUT
            )
        end_s = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > end_s:
                self._process.kill()
                raise LiveError(f"prometheus did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._client.close()

    def _ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def healthy_targets(self) -> int:
        """Return how many servers answered their last scrape."""
        targets = self._get("/api/v1/targets", {})["activeTargets"]
        return sum(target["health"] == "up" for target in targets)

    def range(self, expression: str, start_s: float, end_s: float, step_s: float = 2.0) -> list[Series]:
        """Evaluate a dashboard's expression over a time; Grafana's variables match everything."""
        query = expression.replace("$__rate_interval", f"{RATE_INTERVAL_S}s")
        query = re.sub(r"\$\w+", ".*", query)
        values = {"query": query, "start": start_s, "end": end_s, "step": step_s}
        found = self._get("/api/v1/query_range", values)["result"]
        return [
            ([float(when) for when, _ in one["values"]], [float(value) for _, value in one["values"]])
            for one in found
        ]

    def _get(self, path: str, values: dict[str, Any]) -> Any:
        answer = self._client.get(path, params=values).json()
        if answer.get("status") != "success":
            raise LiveError(f"prometheus refused {values}: {answer.get('error')}")
        return answer["data"]
