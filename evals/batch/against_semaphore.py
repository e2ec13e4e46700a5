"""`bros batch` and a plain semaphore client on one server, in turns.

    python -m bros_sglang.evals.batch.against_semaphore http://127.0.0.1:30000 --model NAME \
        --requests 20000 --rounds 10 --out evals/results/batch/against_semaphore.json

Each round sends the next part of one corpus through both clients, the order changing from round to round, the
server's cache flushed before each. Compared are tokens/s from first to last answer; client CPU and memory
stand beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from bros_sglang.evals.batch.corpus import write_corpus

CLIENTS: Final = ("bros", "plain")


def bros_round(corpus: Path, folder: Path, url: str, extra: list[str]) -> dict[str, float]:
    """Send a corpus through `bros batch run`."""
    command = [sys.executable, "-m", "bros_sglang.cli.app", "batch", "run", str(corpus), "-o", str(folder)]
    subprocess.run([*command, "--endpoint", url, "--quiet", *extra], check=True)  # noqa: S603
    record = orjson.loads((folder / "run.json").read_bytes())
    session, tokens = record["sessions"][-1], record["tokens"]
    return {
        "requests": record["counts"]["ok"],
        "failed": record["counts"]["failed"],
        "prompt": tokens["prompt"],
        "completion": tokens["completion"],
        "cached": tokens["cached"] or 0,
        "seconds": session["seconds"],
        "cpu_s": session["client_cpu_s"],
        "peak_mib": session["client_peak_mib"],
    }


def plain_round(corpus: Path, url: str, concurrency: int) -> dict[str, float]:
    """Send a corpus through the plain client."""
    command = [sys.executable, "-m", "bros_sglang.evals.batch.plain_client", str(corpus), url]
    command += ["--concurrency", str(concurrency)]
    ended = subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    figures: dict[str, float] = orjson.loads(ended.stdout)
    return figures


def compare(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run all rounds."""
    rounds: list[dict[str, dict[str, float]]] = []
    size = options.requests // options.rounds
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.rounds):
            corpus = Path(name, f"part{number}.jsonl")
            write_corpus(
                corpus,
                size,
                model=options.model,
                prefixes=options.prefixes,
                prefix_words=options.prefix_words,
                own_words=options.own_words,
                max_tokens=options.max_tokens,
                seed=number,
            )
            figures: dict[str, dict[str, float]] = {}
            for client in ("bros", "plain") if number % 2 == 0 else ("plain", "bros"):
                httpx.post(f"{url}/flush_cache", timeout=60)
                if client == "bros":
                    figures[client] = bros_round(corpus, Path(name, f"out{number}"), url, options.bros)
                else:
                    figures[client] = plain_round(corpus, url, options.concurrency)
            rounds.append(figures)
            rates = {client: _rate(part) for client, part in figures.items()}
            print(f"round {number + 1}: bros {rates['bros']:,.0f}, plain {rates['plain']:,.0f} tokens/s")
    ratios = [_rate(part["bros"]) / _rate(part["plain"]) for part in rounds]
    return {
        "tokens_per_s": {name: _total_rate(rounds, name) for name in CLIENTS},
        "ratio_median": statistics.median(ratios),
        "ratio_of_totals": _total_rate(rounds, "bros") / _total_rate(rounds, "plain"),
        "ratios": ratios,
        "cached_share": {
            name: sum(part[name]["cached"] for part in rounds) / sum(part[name]["prompt"] for part in rounds)
            for name in CLIENTS
        },
        "client_cpu_s": {name: sum(part[name]["cpu_s"] for part in rounds) for name in CLIENTS},
        "client_peak_mib": {
            name: max(part[name]["peak_mib"] for part in rounds) for name in ("bros", "plain")
        },
        "failed": {name: sum(part[name]["failed"] for part in rounds) for name in CLIENTS},
        "rounds": rounds,
        "settings": {key: value for key, value in vars(options).items() if key != "out"},
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()},
        "command": " ".join(["python -m bros_sglang.evals.batch.against_semaphore", *sys.argv[1:]]),
    }


def _rate(figures: dict[str, float]) -> float:
    return (figures["prompt"] + figures["completion"]) / figures["seconds"]


def _total_rate(rounds: list[dict[str, dict[str, float]]], name: str) -> float:
    tokens = sum(part[name]["prompt"] + part[name]["completion"] for part in rounds)
    return tokens / sum(part[name]["seconds"] for part in rounds)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url")
    parser.add_argument("--model", required=True, help="served model name")
    parser.add_argument("--requests", type=int, default=20_000, help="per client, over all rounds")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--concurrency", type=int, default=64, help="of the plain client")
    parser.add_argument("--prefixes", type=int, default=50)
    parser.add_argument("--prefix-words", type=int, default=40)
    parser.add_argument("--own-words", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--bros", nargs=argparse.REMAINDER, default=[], help="options of bros batch run")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    report = compare(options.url.rstrip("/"), options)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "rounds"}, indent=2))


if __name__ == "__main__":
    main()
