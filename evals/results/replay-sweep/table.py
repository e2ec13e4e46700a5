"""Print the sweep's table and the bound with and without it, from the result file beside this script."""

import json
from pathlib import Path

HERE = Path(__file__).parent
results = json.loads((HERE / "s1-rate3.3-tpot50.json").read_text())
arrived = next(one for one in results if one["policy"] == "rt-alone")["rt"]["tokens_per_s"]
swept = [one for one in results if "sweep" in one]
# What the tables of docs/results.md run: chunks of 2,048, and mixed ones of 1,024.
USUAL = {
    "fcfs/chunk=2048",
    "fcfs/chunk=1024,mixed",
    "lpm/chunk=2048",
    "priority/chunk=2048",
    "priority-mixed/chunk=1024,mixed",
}


def total(result: dict) -> float:
    return result["be"]["tokens_per_s"] + result["rt"]["tokens_per_s"]


print("| policy | chunk | TTFT p50/p99 ms | TPOT p99 ms | within | BE tokens/s | all tokens/s |")
print("| --- | --- | --- | --- | --- | --- | --- |")
for name in dict.fromkeys(one["sweep"]["of"] for one in swept):
    mine = [one for one in swept if one["sweep"]["of"] == name]
    shown = {
        "most tokens": max(mine, key=total),
        "most within": next(one for one in mine if one["sweep"]["best"]),
    }
    for why, one in shown.items():
        rt = one["rt"]
        print(
            f"| {name}, {why} | {one['policy'].partition('chunk=')[2].replace(',', ', ')} "
            f"| {rt['ttft_ms']['p50']:,.0f} / {rt['ttft_ms']['p99']:,.0f} | {rt['tpot_ms']['p99']:,.0f} "
            f"| {rt['attainment']:.1%} | {one['be']['tokens_per_s']:,.0f} | {total(one):,.0f} |"
        )
usual = max((one for one in swept if one["policy"] in USUAL), key=total)
best = max(swept, key=total)
print(f"\nBound of the usual settings: {total(usual) - arrived:,.0f} BE tokens/s ({usual['policy']}).")
gain = (total(best) - arrived) / (total(usual) - arrived) - 1
print(f"Bound of the sweep: {total(best) - arrived:,.0f} BE tokens/s ({best['policy']}), {gain:+.1%}.")
