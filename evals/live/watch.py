"""Progress of a campaign on a terminal: a live line where it is one, a line per event where it is a pipe."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from rich.console import Console

    from bros_sglang.evals.live.load import LoadState
    from bros_sglang.evals.live.policy_flags import LivePolicy

LATELY = 20  # RT requests that the figure on the line is the median of


def format_ms(value: float | None) -> str:
    """Write milliseconds as 18 ms or 2,266 ms, and what is not known as –."""
    return "–" if value is None else f"{value:,.0f} ms"


class Watch:
    """Shows one campaign of `runs` runs, each `seconds` long."""

    def __init__(self, console: Console, *, runs: int, seconds: float, rounds: int = 1) -> None:
        self._console = console
        self._seconds = seconds
        self._rounds = rounds
        self._runs = runs
        self._done = 0
        self._said: tuple[str, int] | None = None
        self._progress = Progress(
            TextColumn("[bold]{task.fields[name]:<14}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
            refresh_per_second=4,  # drawing takes time from the client that is measuring
        )
        self._task = self._progress.add_task("", name="", note="", total=seconds)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _name(self, policy: LivePolicy, number: int) -> str:
        return policy.name if self._rounds == 1 else f"{policy.name} {number + 1}/{self._rounds}"

    def starting(self, policy: LivePolicy, round_number: int, waited_s: float) -> None:
        """Show that a server starts."""
        name = self._name(policy, round_number)
        if self._said != (name, 0):
            self._said = (name, 0)
            self._plain(f"{name}: starting a server ({' '.join(policy.command or policy.flags)})")
        self._progress.update(self._task, name=name, note=f"server starting, {waited_s:.0f} s", completed=0)

    def running(self, policy: LivePolicy, round_number: int, state: LoadState) -> None:
        """Show the load: done requests, and how fast RT is just now."""
        name = self._name(policy, round_number)
        if self._said != (name, 1):
            self._said = (name, 1)
            self._plain(f"{name}: {policy.about}; {self._seconds:.0f} s of load")
        notes = []
        if policy.rt:
            lately = state.ttft_s[-LATELY:]
            ttft_ms = statistics.median(lately) * 1000.0 if lately else None
            notes.append(f"TTFT {format_ms(ttft_ms)}")
        if policy.be:
            notes.append(f"BE {state.be_done:,} done")
        if state.failed:
            notes.append(f"[red]{state.failed} failed[/red]")
        self._progress.update(
            self._task, name=name, note="  ".join(notes), completed=min(state.elapsed_s, self._seconds)
        )

    def finished(self, policy: LivePolicy, round_number: int, result: dict[str, Any]) -> None:
        """Print a run's figures, which stay."""
        self._done += 1
        rt, be = result["rt"], result["be"]
        parts = []
        if policy.rt:
            share = rt["attainment"]
            parts.append(
                f"RT TTFT p50 {format_ms(rt['ttft_ms']['p50'])}, p99 {format_ms(rt['ttft_ms']['p99'])}"
            )
            parts.append("–" if share is None else f"{share:.0%} within")
        if policy.be:
            parts.append(f"BE {be['tokens_per_s']:,.0f} tok/s")
        failed = rt["failed"] + be["failed"]
        if failed:
            parts.append(f"{failed} failed")
        self._console.print(
            f"[{self._done}/{self._runs}] {self._name(policy, round_number)}: {'; '.join(parts)}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def _plain(self, line: str) -> None:
        if not self._console.is_terminal:
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)
