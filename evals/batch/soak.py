"""Kill `bros batch run` again and again, and count: every id exactly once, in output or in errors.

    python -m bros_sglang.evals.batch.soak --requests 1000000 --kills 20 --out evals/results/batch/soak.json

A mock server in a process of its own hurts 5 % of the requests (500, 429, cut connections, broken JSON). The
runner gets SIGKILL at moments drawn from the whole run: while it reads what it left, while it connects, in
full flow. The last start ends by itself. Client throughput and memory are recorded beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import orjson
import psutil

from bros_sglang.cli.batch.recovery import count_lines
from bros_sglang.evals.batch.corpus import write_corpus
from bros_sglang.evals.live.server_process import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

FAULTS: Final = "500,429,cut,cut-mid,broken"
_POLL_S: Final = 0.05


@dataclass(slots=True)
class Start:
    """One start of the runner."""

    killed: bool
    exit_code: int
    seconds: float
    cpu_s: float  # as seen last; 0 for the shortest
    peak_mib: float
    first_answer_s: float | None  # until output.jsonl grew
    answers: int  # lines that it added to output.jsonl (a torn one does not count)
    rss_mib: list[float] = field(default_factory=list)  # every half second


@dataclass(slots=True)
class Report:
    """What came of it."""

    requests: int
    kills: int
    fault_rate: float
    exactly_once: bool
    ids_in_output: int
    ids_in_errors: int
    missing: int
    doubled: int
    seconds: float  # all starts together
    peak_mib: float
    requests_per_s: float  # requests over the seconds of all starts
    requests_per_cpu_s: float  # requests over the client's CPU seconds
    starts: list[Start]
    mock: dict[str, int]
    machine: dict[str, Any]
    command: str


def soak(
    folder: Path,
    *,
    requests: int,
    kills: int,
    fault_rate: float = 0.05,
    seed: int = 0,
    core: int | None = None,
) -> Report:
    """Run it in `folder`. `core` binds the client to one core."""
    corpus, results = folder / "input.jsonl", folder / "results"
    if not corpus.exists():
        write_corpus(corpus, requests)
    port = free_port()
    mock = [sys.executable, "-m", "bros_sglang.mock_server", "--port", str(port)]
    mock += ["--fault-rate", str(fault_rate), "--faults", FAULTS, "--seed", str(seed)]
    server = subprocess.Popen(mock, stdout=subprocess.DEVNULL)  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    client = [sys.executable, "-m", "bros_sglang.cli.app", "batch", "run", str(corpus), "-o", str(results)]
    client += ["--endpoint", url, "--quiet"]
    draw = random.Random(seed)
    # A third dies in its first second and a half (reading back, connecting), the others in full flow.
    marks = sorted(draw.uniform(0.0, 0.97) for _ in range(kills - kills // 3))
    early = [False] * len(marks) + [True] * (kills // 3)
    draw.shuffle(early)
    flow = iter(marks)
    starts: list[Start] = []
    begin = time.monotonic()
    try:
        _wait_for(url)
        for is_early in early:
            mark = None if is_early else next(flow)
            delay_s = draw.uniform(0.0, 1.5)
            starts.append(_one_start(client, results, requests, mark=mark, delay_s=delay_s, core=core))
            print(_line(len(starts), starts[-1], results), flush=True)
        starts.append(_one_start(client, results, requests, mark=2.0, delay_s=0.0, core=core))
        print(_line(len(starts), starts[-1], results), flush=True)
        seconds = time.monotonic() - begin
        counts = httpx.get(f"{url}/mock/stats").json()
    finally:
        server.terminate()
        server.wait()
    return _report(results, requests, fault_rate, starts, counts, seconds)


def _one_start(
    client: Sequence[str],
    results: Path,
    requests: int,
    *,
    mark: float | None,
    delay_s: float,
    core: int | None,
) -> Start:
    """Start the runner and kill it: after `delay_s` where `mark` is None, else at that share of answers."""
    output = results / "output.jsonl"
    size_before, lines_before = _size(output), count_lines(output)
    begin = time.monotonic()
    process = subprocess.Popen(client, env=os.environ | {"OMP_NUM_THREADS": "1"})  # noqa: S603
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    watched = psutil.Process(process.pid)
    start = Start(killed=False, exit_code=0, seconds=0, cpu_s=0, peak_mib=0, first_answer_s=None, answers=0)
    line_bytes = size_before / lines_before if lines_before else 500.0
    sampled_s = 0.0
    while process.poll() is None:
        now_s = time.monotonic() - begin
        try:
            with watched.oneshot():
                rss = watched.memory_info().rss / 2**20
                times = watched.cpu_times()
        except psutil.NoSuchProcess:
            break
        start.cpu_s, start.peak_mib = times.user + times.system, max(start.peak_mib, rss)
        if now_s - sampled_s >= 0.5:
            sampled_s = now_s
            start.rss_mib.append(round(rss, 1))
        size = _size(output)
        if start.first_answer_s is None and size > size_before:
            start.first_answer_s = round(now_s, 2)
        if now_s >= delay_s if mark is None else size / line_bytes >= mark * requests:
            process.send_signal(signal.SIGKILL)
            start.killed = True
            break
        time.sleep(_POLL_S)
    process.wait()
    start.exit_code = process.returncode
    start.seconds = round(time.monotonic() - begin, 2)
    start.answers = count_lines(output) - lines_before
    return start


def check_exactly_once(results: Path, requests: int) -> tuple[int, int, int, int]:
    """Return ids in output, ids in errors, ids in neither, and ids that stand more than once."""
    seen = bytearray(requests)
    counts = []
    for name in ("output.jsonl", "errors.jsonl"):
        count = 0
        with (results / name).open("rb") as file:
            for line in file:
                seen[int(orjson.loads(line)["custom_id"].removeprefix("request-"))] += 1
                count += 1
        counts.append(count)
    return counts[0], counts[1], seen.count(0), sum(1 for times in seen if times > 1)


def _report(
    results: Path,
    requests: int,
    fault_rate: float,
    starts: list[Start],
    counts: dict[str, int],
    seconds: float,
) -> Report:
    in_output, in_errors, missing, doubled = check_exactly_once(results, requests)
    cpu_s = sum(start.cpu_s for start in starts)
    return Report(
        requests=requests,
        kills=sum(start.killed for start in starts),
        fault_rate=fault_rate,
        exactly_once=missing == 0 and doubled == 0 and starts[-1].exit_code in (0, 1),
        ids_in_output=in_output,
        ids_in_errors=in_errors,
        missing=missing,
        doubled=doubled,
        seconds=round(seconds, 1),
        peak_mib=round(max(start.peak_mib for start in starts), 1),
        requests_per_s=round(requests / seconds, 1),
        requests_per_cpu_s=round(requests / cpu_s, 1),
        starts=starts,
        mock=counts,
        machine={"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()},
        command=" ".join(["python -m bros_sglang.evals.batch.soak", *sys.argv[1:]]),
    )


def _line(number: int, start: Start, results: Path) -> str:
    ended = "killed" if start.killed else f"exit {start.exit_code}"
    total = count_lines(results / "output.jsonl")
    return (
        f"start {number}: {ended} after {start.seconds:.1f} s, +{start.answers:,} answers ({total:,}), "
        f"peak {start.peak_mib:.0f} MiB, CPU {start.cpu_s:.1f} s"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wait_for(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(f"{url}/health")
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"the mock server did not start at {url}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--fault-rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--core", type=int, help="bind the client to this core")
    parser.add_argument("--folder", type=Path, help="work here and keep it; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="write the report here")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="bros-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        report = soak(
            folder,
            requests=options.requests,
            kills=options.kills,
            fault_rate=options.fault_rate,
            seed=options.seed,
            core=options.core,
        )
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    data = orjson.dumps(asdict(report), option=orjson.OPT_INDENT_2)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(data + b"\n")
    shown = {key: value for key, value in asdict(report).items() if key != "starts"}
    print(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
    sys.exit(0 if report.exactly_once else 1)


if __name__ == "__main__":
    main()
