"""Write the live table of docs/replay.md from the files beside this script: python table.py [PAGE].

Without a page it is printed.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from into_docs import put  # noqa: E402

# Each system and the run of its own RT alone.
PAIRS = (
    ("SGLang, fcfs", "fcfs", "rt-alone"),
    ("SGLang, priority with preemption", "priority", "rt-alone"),
    ("bros", "bros", "bros-rt-alone"),
    ("vLLM, fcfs", "vllm-fcfs", "vllm-fcfs rt-alone"),
    ("vLLM, priority", "vllm-priority", "vllm-priority rt-alone"),
)
results = {result["policy"]: result for result in json.loads((HERE / "results.json").read_text())}
rounds = json.loads((HERE / "rounds.json").read_text())


def times(value: float | None, alone: float | None) -> str:
    return f"{value / alone:.1f} ×" if value and alone else "–"


def low_high(policy: str) -> str:
    shares = [one["rt"]["attainment"] for one in rounds if one["policy"] == policy]
    least, most = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
    return f"{least} %" if least == most else f"{least}–{most} %"


def counted(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


lines = [
    "| system | TTFT p50/p99 ms, its RT alone | beside BE | p50 | normalised latency | within, by round | BE tokens/s "
    "| waiting / running | KV held |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
]
for name, both, alone in PAIRS:
    if both not in results or alone not in results:
        continue
    rt, own, be = results[both]["rt"], results[alone]["rt"], results[both]["be"]
    latency, latency_own = (one["normalized_latency_ms"]["mean"] for one in (rt, own))
    waiting, running = (results[both][key]["all"]["mean"] for key in ("queue_length", "running"))
    held = results[both]["kv_use"]["held_mean"]
    lines.append(
        f"| {name} | {own['ttft_ms']['p50']:,.0f} / {own['ttft_ms']['p99']:,.0f} "
        f"| {rt['ttft_ms']['p50']:,.0f} / {rt['ttft_ms']['p99']:,.0f} "
        f"| {times(rt['ttft_ms']['p50'], own['ttft_ms']['p50'])} | {times(latency, latency_own)} "
        f"| {low_high(both)} | {be['tokens_per_s']:,.0f} | {counted(waiting)} / {counted(running)} "
        f"| {'–' if held is None else f'{held:.0%}'} |"
    )
lines += ["", f"Medians of {max(one['round'] for one in rounds)} interleaved rounds of {rounds[0]['seconds']:.0f} s."]
if len(sys.argv) > 1:
    put(Path(sys.argv[1]), "vllm-live", "\n".join(lines))
else:
    print("\n".join(lines))
