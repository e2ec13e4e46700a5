"""The report: one page with everything in it, and the same pictures and figures as files beside it."""

from __future__ import annotations

import base64
import io
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from jinja2 import Environment, FileSystemLoader, select_autoescape

from bros_sglang._version import __version__
from bros_sglang.evals.demo.summary import LATE_MS
from bros_sglang.evals.metrics.write import write_results
from bros_sglang.evals.report.be_throughput import be_throughput
from bros_sglang.evals.report.capacity import WANTED, capacities, capacity_curve, capacity_points
from bros_sglang.evals.report.kv_split import kv_split
from bros_sglang.evals.report.latency_cdf import latency_cdf
from bros_sglang.evals.report.palette import colours, save
from bros_sglang.evals.report.result_set import ReportError
from bros_sglang.evals.report.rt_timeline import rt_timeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from bros_sglang.evals.report.result_set import ResultSet

# (column, place in the result, format)
_COLUMNS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("RT requests", ("rt", "requests"), ",.0f"),
    ("TTFT p50, ms", ("rt", "ttft_ms", "p50"), ",.0f"),
    ("TTFT p99, ms", ("rt", "ttft_ms", "p99"), ",.0f"),
    ("TPOT p50, ms", ("rt", "tpot_ms", "p50"), ",.1f"),
    ("TPOT p99, ms", ("rt", "tpot_ms", "p99"), ",.1f"),
    ("norm. latency, ms", ("rt", "normalized_latency_ms", "mean"), ",.1f"),
    ("within TTFT", ("rt", "ttft_attainment"), ".1%"),
    ("within TPOT", ("rt", "tpot_attainment"), ".1%"),
    ("within both", ("rt", "attainment"), ".1%"),
    ("BE tokens/s", ("be", "tokens_per_s"), ",.0f"),
    ("BE requests/s", ("be", "requests_per_s"), ",.2f"),
    ("longest BE wait, s", ("be", "longest_wait_s"), ",.1f"),
    ("BE fairness", ("be", "jain_fairness"), ".2f"),
    ("preemptions", ("preemptions",), ",.0f"),
    ("recomputed tokens", ("tokens", "recomputed"), ",.0f"),
    ("loaded back tokens", ("tokens", "loaded_back"), ",.0f"),
    ("prefix hits", ("prefix_hit_rate",), ".1%"),
    ("waiting", ("queue_length", "all", "mean"), ",.0f"),
    ("KV held", ("kv_use", "held_mean"), ".0%"),
    ("tokens arrived", ("tokens", "arrived"), ",.0f"),
    ("in flight at the end", ("tokens", "in_flight"), ",.0f"),
)


def _cell(result: dict[str, Any], place: tuple[str, ...], form: str) -> str:
    value: Any = result
    for key in place:
        value = value.get(key) if isinstance(value, dict) else None
    return "–" if value is None else format(value, form)


def _books(result_set: ResultSet) -> str:
    """Say what the token books say, where they balance; where they do not, a warning does."""
    books = [result["tokens"]["conserved"] for result in result_set.results if "tokens" in result]
    if not books or not all(books):
        return ""
    return "Tokens are conserved: in every run what came in came out, failed, or is in flight."


def _warnings(result_set: ResultSet) -> list[str]:
    warnings = []
    for result in result_set.results:
        policy, failed = result["policy"], result["rt"].get("failed", 0) + result["be"].get("failed", 0)
        if failed:
            warnings.append(f"{policy}: {failed} requests failed.")
        if result.get("tokens", {}).get("conserved") is False:
            warnings.append(f"{policy}: the token books do not balance.")
        client = result.get("client") or {}
        if client.get("cpu_share", 0.0) > 0.8:
            warnings.append(
                f"{policy}: the client used {client['cpu_share']:.0%} of its core; it may be the limit."
            )
        if client.get("lag_ms_p99", 0.0) > LATE_MS:
            warnings.append(f"{policy}: the client sent requests {client['lag_ms_p99']:.0f} ms late (p99).")
    return warnings


def _pictures(result_set: ResultSet) -> list[tuple[str, str, Figure]]:
    name, records = result_set.name, result_set.records
    pictures: list[tuple[str, str, Figure | None]] = []
    if any(records.values()):
        pictures.append(
            ("rt_timeline", "RT latency over time", rt_timeline(records, f"{name}: RT latency over time"))
        )
        pictures.append(
            ("latency_cdf", "Latency distributions", latency_cdf(records, f"{name}: latency distributions"))
        )
    pictures.append(
        ("be_throughput", "BE throughput", be_throughput(result_set.results, f"{name}: BE throughput"))
    )
    pictures.append(
        ("kv_split", "KV pool by holder", kv_split(result_set.results, f"{name}: who holds the KV pool"))
    )
    return [(key, alt, figure) for key, alt, figure in pictures if figure is not None]


def _embed(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()


def _command(about: dict[str, Any]) -> str:
    command = about.get("command", "")
    return shlex.join(command) if isinstance(command, list) else str(command)


def write_report(sets: Sequence[ResultSet], folder: Path, title: str) -> Path:
    """Write index.html, a PNG per picture, report.json and report.csv to `folder`; return the page's path.

    Raises ReportError where the folder holds something that is no earlier report.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "report.json").is_file():
        raise ReportError(f"{folder} is not empty and holds no earlier report: give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    shown = []
    for number, result_set in enumerate(sets, 1):
        stem = f"{number}-" if len(sets) > 1 else ""
        pictures = []
        for key, alt, figure in _pictures(result_set):
            save(figure, folder / f"{stem}{key}.png")
            pictures.append({"data": _embed(figure), "alt": f"{alt}, {result_set.name}"})
        colour = colours(result_set.policies)
        shown.append(
            {
                "name": result_set.name,
                "command": _command(result_set.about),
                "workloads": result_set.about.get("workloads") or {},
                "warnings": _warnings(result_set),
                "books": _books(result_set),
                "pictures": pictures,
                "rows": [
                    {
                        "policy": result["policy"],
                        "colour": colour[result["policy"]],
                        "cells": [_cell(result, place, form) for _, place, form in _COLUMNS],
                    }
                    for result in result_set.results
                ],
            }
        )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
    )
    page = environment.get_template("page.html").render(
        title=title,
        version=__version__,
        columns=["policy", *(name for name, _, _ in _COLUMNS)],
        sets=shown,
        capacity=_capacity(sets, folder),
        wanted=WANTED,
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    flat = [{"set": s.name, **result} for s in sets for result in s.results]
    write_results(folder, flat, name="report")
    return path


def _capacity(sets: Sequence[ResultSet], folder: Path) -> dict[str, Any] | None:
    figure = capacity_curve(sets)
    if figure is None:
        return None
    rows = capacities(capacity_points(sets))
    (folder / "capacity.json").write_bytes(orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n")
    save(figure, folder / "capacity.png")
    shown = [
        {
            "policy": row["policy"],
            "rate": "none measured"
            if row["rt_requests_per_s"] is None
            else f"{row['rt_requests_per_s']:.2f}",
            "be": "–" if row["be_tokens_per_s"] is None else f"{row['be_tokens_per_s']:,.0f}",
        }
        for row in rows
    ]
    return {"rows": shown, "data": _embed(figure)}
