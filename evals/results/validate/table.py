"""Write the table of docs/replay.md from validation.json beside this script: python table.py [PAGE].

Without a page it is printed.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from into_docs import put  # noqa: E402

data = json.loads((HERE / "validation.json").read_text())
run = json.loads((HERE / "run.json").read_text())
figures = data["figures"]
within = sum(figure["within"] for figure in figures)
# A replay cannot be expected nearer to the live figure than one live round is to the next.
noisy = [f for f in figures if not f["within"] and (f["live_spread"] or 0.0) > 0.15]


def number(value: float | None) -> str:
    """Write a figure with as many digits as it bears."""
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


lines = [
    f"{within} of {len(figures)} figures are within 15 %"
    + (f"; of the others {len(noisy)} differ by more than 15 % between the live rounds themselves." if noisy else ".")
    + f" Passes that the machine held up: up to {max(one['stalled_share'] for one in data['results']):.1%} of the time.",
    "",
    "| load | policy | figure | live | its rounds | replay | ratio | own passes | within 15 % |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
]
for f in figures:
    lines.append(
        f"| {f['load']} | {f['policy']} | {f['figure']} | {number(f['live'])} "
        f"| {' / '.join(map(number, f['live_rounds']))} | {number(f['replay'])} "
        f"| {'–' if f['ratio'] is None else format(f['ratio'], '.2f')} "
        f"| {'–' if f['ratio_own_steps'] is None else format(f['ratio_own_steps'], '.2f')} "
        f"| {'yes' if f['within'] else 'no'} |"
    )
lines += [
    "",
    "![RT TTFT live and replayed, and every figure over the live one](images/validation.png)",
    "",
    f"`evals/results/validate/run.sh`, {run['started'][:10]}.",
]
text = "\n".join(lines)
if len(sys.argv) > 1:
    put(Path(sys.argv[1]), "validation", text)
else:
    print(text)
