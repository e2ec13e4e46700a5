"""The comparison of policies as a table that fits 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


def _ms(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def format_share(value: float | None) -> str:
    """Write a share as a percentage; only 1 is 100 % and only 0 is 0 %."""
    if value is None:
        return "–"
    percent = value * 100.0
    return f"{percent:.0f} %" if percent in (0.0, 100.0) else f"{min(max(percent, 0.1), 99.9):.1f} %"


def comparison_table(results: Sequence[dict[str, Any]], *, title: str | None = None) -> Table:
    """Return a table with one row per policy: RT latencies in ms, attainment, BE tokens/s."""
    table = Table(title=title, title_justify="left", pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("policy", no_wrap=True)
    for name in ("TTFT ms\np50", "\np99", "TPOT ms\np99", "within\ntargets", "BE\ntokens/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        rt, be = result["rt"], result["be"]
        table.add_row(
            result["policy"],
            _ms(rt["ttft_ms"]["p50"]),
            _ms(rt["ttft_ms"]["p99"]),
            _ms(rt["tpot_ms"]["p99"], 1),
            format_share(rt["attainment"]),
            _ms(be["tokens_per_s"]) if be["requests"] else "–",
        )
    return table
