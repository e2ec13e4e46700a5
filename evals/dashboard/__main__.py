"""Run a small bros server on the CPU through five phases, and draw what the dashboard shows of it.

python -m bros_sglang.evals.dashboard --out docs/images/dashboard.png

Needs the program `prometheus` (Debian, Ubuntu: apt-get install prometheus). Takes seven minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

from typer.testing import CliRunner

from bros_sglang.cli.app import app
from bros_sglang.evals.dashboard.picture import draw
from bros_sglang.evals.dashboard.prometheus import Prometheus
from bros_sglang.evals.live.dialect import SGLangDialect
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.load import LoadPlan, run_load
from bros_sglang.evals.live.server_process import ServerProcess, terminate_as_interrupt
from bros_sglang.evals.live.sglang_command import TINY_ENV, tiny_server_command
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass
from bros_sglang.settings import load_settings

_FLAGS: Final = ("--policy", "bros", "--enable-metrics")
_BE: Final = "uniform:prompt=128-256,output=32-128,outstanding=64"


class Step(NamedTuple):
    """One phase of the load."""

    label: str
    rt: str | None
    be: str | None
    share: float  # of the time


STEPS: Final = (
    Step("chat alone", "synthetic:rate=3,scale=8", None, 0.15),
    Step("a corpus comes", "synthetic:rate=3,scale=8", _BE, 0.3),
    Step("three times the chat", "synthetic:rate=9,scale=8", _BE, 0.2),
    Step("corpus alone", None, _BE, 0.15),
    Step("chat is back", "synthetic:rate=3,scale=8", _BE, 0.2),
)


def main() -> None:
    """Run and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/dashboard.png"))
    parser.add_argument("--seconds", type=float, default=300.0, help="length of the load")
    values = parser.parse_args()
    try:
        with terminate_as_interrupt(), tempfile.TemporaryDirectory(prefix="bros-dashboard-") as scratch:
            _run(Path(scratch), values.out, values.seconds)
    except LiveError as error:
        raise SystemExit(f"error: {error}") from error


def _run(scratch: Path, out: Path, seconds: float) -> None:
    command = [*tiny_server_command(scratch), *_FLAGS]
    _say("starting a server")
    with ServerProcess(command, scratch / "server.log", env=dict(TINY_ENV)) as server:
        monitoring = scratch / "monitoring"
        written = CliRunner().invoke(app, ["monitoring", str(monitoring), "--server", server.url])
        if written.exit_code != 0:
            raise LiveError(written.output)
        with Prometheus(monitoring, scratch / "data") as prometheus:
            _load(server.url, 5.0, STEPS[0], seed=1)  # a server's first steps are slow
            while prometheus.healthy_targets() == 0:
                time.sleep(0.5)
            time.sleep(20.0)  # what went before leaves the rates
            start_s, phases = time.time(), []
            for number, step in enumerate(STEPS):
                phases.append((time.time() - start_s, step.label))
                _say(f"{step.label}, {step.share * seconds:.0f} s")
                _load(server.url, step.share * seconds, step, seed=10 + number)
            end_s = time.time()
            time.sleep(4.0)  # the last scrape
            dashboard = json.loads((monitoring / "grafana/dashboards/bros.json").read_text(encoding="utf-8"))
            data = {
                panel["id"]: [
                    _only(prometheus.range(target["expr"], start_s, end_s), target["expr"])
                    for target in panel["targets"]
                ]
                for panel in dashboard["panels"]
            }
    out.parent.mkdir(parents=True, exist_ok=True)
    targets = load_settings()
    caption = (
        "Drawn by evals.dashboard from the dashboard's own queries, not by Grafana. Tiny model, two shared "
        f"CPU cores, default targets: TTFT {targets.ttft_ms:g} ms, TPOT {targets.tpot_ms:g} ms."
    )
    draw(dashboard, data, out, start_s=start_s, phases=phases, caption=caption)
    _say(f"{out}")


def _load(url: str, seconds: float, step: Step, *, seed: int) -> None:
    def workload(spec: str | None, which: RequestClass) -> object:
        if spec is None:
            return None
        return parse_workload(spec, which, seconds=seconds, seed=seed, exact_limit=True)

    plan = LoadPlan(
        workload(step.rt, RequestClass.RT),  # type: ignore[arg-type]
        workload(step.be, RequestClass.BE),  # type: ignore[arg-type]
        seconds,
        grace_s=5.0,
    )
    run_load(url, SGLangDialect(), plan)


def _only(found: list[tuple[list[float], list[float]]], expression: str) -> tuple[list[float], list[float]]:
    if len(found) != 1:
        raise LiveError(f"{len(found)} series where the dashboard expects one: {expression}")
    return found[0]


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
