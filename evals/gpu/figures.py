"""From the records of a run to the figures that the docs show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.evals.gpu.cell import CellRecord

# What the replay is held against, and where it stands in a result.
REPLAY_FIGURES: dict[str, tuple[str, ...]] = {
    "RT TTFT p50 ms": ("rt", "ttft_ms", "p50"),
    "RT TTFT p99 ms": ("rt", "ttft_ms", "p99"),
    "RT TPOT p50 ms": ("rt", "tpot_ms", "p50"),
    "RT TPOT p99 ms": ("rt", "tpot_ms", "p99"),
    "BE tokens/s": ("be", "tokens_per_s"),
}
STOCK = ("fcfs", "priority", "priority-mixed")
ATTAINMENT_POINTS, BE_SHARE, STEP_ADDED, REPLAY_TOLERANCE = 0.5, 0.95, 0.02, 0.10


class Results:
    """The records of a run, by stage and cell."""

    def __init__(self, about: dict[str, Any], records: Sequence[CellRecord]) -> None:
        self.about = about
        self.records = list(records)
        self._done = {(r.stage, r.cell): r.result for r in records if r.status == "done"}

    @property
    def dry(self) -> bool:
        """Whether this is a dry run on the CPU, whose figures mean nothing."""
        return self.about.get("device") == "cpu"

    def of(self, stage: str, cell: str) -> dict[str, Any] | None:
        """Return a finished cell's figures, or None."""
        return self._done.get((stage, cell))

    def stage(self, stage: str) -> dict[str, dict[str, Any]]:
        """Return the figures of a stage's finished cells, by name."""
        return {cell: result for (name, cell), result in self._done.items() if name == stage}

    def open(self) -> list[CellRecord]:
        """Return the records of cells that did not finish."""
        return [record for record in self.records if record.status != "done"]


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One policy at one RT rate."""

    rate: float
    policy: str
    ttft_p50_ms: float | None
    ttft_p99_ms: float | None
    tpot_p99_ms: float | None
    attainment: float | None
    rt_tokens_per_s: float
    be_tokens_per_s: float
    of_bound: float | None  # BE throughput as a share of the work-conserving bound of this rate
    preemptions: int


def load_rows(results: Results) -> list[LoadRow]:
    """Return the load stage's rows by rate, with BE against the work-conserving bound where it is known.

    The bound: the highest total of tokens/s that a stock policy reached on the mix, less the RT tokens/s that
    were served when RT was alone.
    """
    by_rate: dict[float, list[dict[str, Any]]] = {}
    for result in results.stage("load").values():
        by_rate.setdefault(float(result["rate"]), []).append(result)
    rows = []
    for rate in sorted(by_rate):
        bound = work_conserving_bound(by_rate[rate])
        for result in sorted(by_rate[rate], key=lambda r: str(r["policy"])):
            rt, be = result["rt"], result["be"]
            be_tokens = float(be["tokens_per_s"] or 0.0)
            shared = bool(rt["requests"]) and bool(be["requests"])
            rows.append(
                LoadRow(
                    rate,
                    result["policy"],
                    rt["ttft_ms"]["p50"],
                    rt["ttft_ms"]["p99"],
                    rt["tpot_ms"]["p99"],
                    rt["attainment"],
                    float(rt["tokens_per_s"] or 0.0),
                    be_tokens,
                    be_tokens / bound if bound and shared else None,
                    int(result["preemptions"]),
                )
            )
    return rows


def work_conserving_bound(results: Sequence[dict[str, Any]]) -> float | None:
    """Return the BE tokens/s that a policy without idle time could reach at one rate; None where unknown."""
    alone = [r["rt"]["tokens_per_s"] for r in results if r["policy"] == "rt-alone"]
    totals = [r["rt"]["tokens_per_s"] + r["be"]["tokens_per_s"] for r in results if r["policy"] in STOCK]
    if not alone or not totals:
        return None
    bound = float(max(totals) - alone[0])
    return bound if bound > 0 else None


def step_added(results: Results) -> float | None:
    """Return what bros adds to stock's median decode step with every seat taken, as a share of it."""
    stock, bros = (results.of("overhead", policy) for policy in ("fcfs", "bros"))
    if stock is None or bros is None or not stock["step_ms"]:
        return None
    return float(bros["step_ms"] / stock["step_ms"] - 1.0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One wanted figure and what was measured."""

    wanted: str
    measured: str
    met: bool


def verdicts(results: Results) -> list[Verdict]:
    """Hold what was measured against what is wanted; what was not measured is left out."""
    found = []
    rows = load_rows(results)
    for rate in sorted({row.rate for row in rows}):
        here = {row.policy: row for row in rows if row.rate == rate}
        bros, alone = here.get("bros"), here.get("rt-alone")
        if bros is not None and alone is not None and None not in (bros.attainment, alone.attainment):
            points = 100.0 * ((alone.attainment or 0.0) - (bros.attainment or 0.0))
            found.append(
                Verdict(
                    f"{rate:g} RT/s: RT within targets at most {ATTAINMENT_POINTS:g} points below RT alone",
                    f"{points:.1f} points below",
                    points <= ATTAINMENT_POINTS,
                )
            )
        if bros is not None and bros.of_bound is not None:
            found.append(
                Verdict(
                    f"{rate:g} RT/s: BE at least {BE_SHARE:.0%} of the work-conserving bound",
                    f"{bros.of_bound:.0%}",
                    bros.of_bound >= BE_SHARE,
                )
            )
    added = step_added(results)
    if added is not None:
        wanted = f"bros adds under {STEP_ADDED:.0%} to the median decode step with every seat taken"
        found.append(Verdict(wanted, f"{added:+.1%}", added < STEP_ADDED))
    replayed = [figure for cell in results.stage("replay").values() for figure in cell["figures"]]
    if replayed:
        within = sum(bool(figure["within"]) for figure in replayed)
        wanted = f"the replay is within {REPLAY_TOLERANCE:.0%} of the live run"
        found.append(Verdict(wanted, f"{within} of {len(replayed)} figures", within == len(replayed)))
    return found
