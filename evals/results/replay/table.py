"""Print the tables of docs/results.md from the result files beside this script: python table.py > tables.md."""

import json
from pathlib import Path

HERE = Path(__file__).parent
STOCK = ("fcfs", "fcfs-mixed", "lpm", "priority", "priority-mixed")


def bound(results: list[dict]) -> float:
    """The work-conserving bound: the highest total tokens/s that a stock policy reaches, less RT's that arrived."""
    by_name = {r["policy"]: r for r in results}
    rt = by_name["rt-alone"]["rt"]
    arrived = rt.get("tokens_per_s") or 0.0
    totals = [(r["be"].get("tokens_per_s") or 0) + (r["rt"].get("tokens_per_s") or 0) for n, r in by_name.items() if n in STOCK]
    return max(totals) - arrived if totals else 0.0


for path in sorted([*HERE.glob("*.json"), *HERE.glob("seeds/*.json")]):
    results = json.loads(path.read_text())
    alone = any(r["policy"] == "rt-alone" for r in results)
    top = bound(results) if alone else 0.0
    print(f"\n### {path.stem}\n")
    if top:
        print(f"Work-conserving bound: {top:,.0f} BE tokens/s.\n")
    print("| policy | TTFT p50/p99 ms | TPOT p99 ms | within | norm. latency ms | BE tokens/s | of bound | preempted | recomputed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in results:
        rt, be = r["rt"], r["be"]
        within = rt.get("attainment")
        rate = be.get("tokens_per_s")
        print(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |".format(
                r["policy"],
                f"{rt['ttft_ms']['p50']:,.0f} / {rt['ttft_ms']['p99']:,.0f}" if rt.get("ttft_ms", {}).get("p50") else "–",
                f"{rt['tpot_ms']['p99']:.0f}" if rt.get("tpot_ms", {}).get("p99") else "–",
                "–" if within is None else f"{within:.1%}",
                f"{rt['normalized_latency_ms']['mean']:,.0f}" if rt.get("normalized_latency_ms", {}).get("mean") else "–",
                f"{rate:,.0f}" if rate else "–",
                f"{rate / top:.0%}" if rate and top else "–",
                r.get("preemptions", 0),
                f"{r['tokens']['recomputed']:,}",
            )
        )
