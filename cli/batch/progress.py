"""The progress display: live on a terminal, plain lines elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Protocol

import orjson
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from bros_sglang.cli.batch.snapshot import ServerView, Snapshot

PLAIN_EVERY_S: Final = 10.0


class Display(Protocol):
    """Shows snapshots and notes."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a reading (about one a second)."""
        ...

    def note(self, message: str) -> None:
        """Say something once."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class QuietDisplay:
    """Shows nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Show nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Do nothing."""


class PlainDisplay:
    """A line every ten seconds on standard error, for logs."""

    def __init__(self) -> None:
        self._shown_s: float | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Print a line when the last one is old enough."""
        if self._shown_s is None or snapshot.elapsed_s - self._shown_s >= PLAIN_EVERY_S:
            self._shown_s = snapshot.elapsed_s
            print(plain_line(snapshot), file=sys.stderr, flush=True)

    def note(self, message: str) -> None:
        """Print it."""
        print(message, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Do nothing."""


class JsonDisplay:
    """A JSON object per line on standard output."""

    def __init__(self) -> None:
        self._shown_s: float | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Print a reading when the last one is old enough."""
        if self._shown_s is None or snapshot.elapsed_s - self._shown_s >= PLAIN_EVERY_S:
            self._shown_s = snapshot.elapsed_s
            _print_json({"event": "progress", **snapshot.to_json()})

    def note(self, message: str) -> None:
        """Print a note."""
        _print_json({"event": "note", "message": message})

    def close(self) -> None:
        """Do nothing."""


class LiveDisplay:
    """A few lines that stay in place on a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        """Draw it anew."""
        self._live.update(render(snapshot), refresh=True)

    def note(self, message: str) -> None:
        """Print it above the display."""
        self._live.console.print(message, markup=False, highlight=False)

    def close(self) -> None:
        """Take the display away."""
        self._live.stop()


def make_display(*, quiet: bool, json: bool) -> Display:
    """Choose the display for this terminal and these options."""
    if json:
        return JsonDisplay()
    if quiet:
        return QuietDisplay()
    return LiveDisplay() if sys.stderr.isatty() else PlainDisplay()


def plain_line(snapshot: Snapshot) -> str:
    """Return a reading as one line."""
    parts = [
        f"{_done(snapshot)} done",
        f"{snapshot.failed:,} failed",
        f"{snapshot.requests_per_s:,.0f} requests/s",
        f"{_tokens(snapshot)} tokens/s",
        f"{snapshot.in_flight} in flight",
    ]
    if snapshot.rejected:
        parts.insert(2, f"{snapshot.rejected:,} bad lines")
    if snapshot.cached_share is not None:
        parts.append(f"{snapshot.cached_share:.0%} of prompts cached")
    parts.extend(f"{server.name} away: {server.problem}" for server in snapshot.servers if not server.up)
    if snapshot.eta_s is not None:
        parts.append(f"ETA {duration(snapshot.eta_s)}")
    return " · ".join(parts)


def render(snapshot: Snapshot) -> Group:
    """Draw a reading for a terminal of 80 columns or more."""
    share = min(1.0, snapshot.finished / snapshot.total) if snapshot.total else 0.0
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    percent = f"{share:6.1%}" if snapshot.total else "     ?"
    eta = duration(snapshot.eta_s) if snapshot.eta_s is not None else "?"
    bar = ProgressBar(total=1.0, completed=share) if snapshot.total else ProgressBar(pulse=True)
    head.add_row(bar, f"{percent}  ETA {eta}")

    body = Table.grid(padding=(0, 2))
    body.add_column(style="dim", no_wrap=True)
    body.add_column(overflow="fold")
    body.add_row("done", _done_text(snapshot))
    body.add_row("rate", f"{snapshot.requests_per_s:,.1f} requests/s · {_tokens(snapshot)} tokens/s")
    flight = f"{snapshot.in_flight:,}"
    if snapshot.waiting_retries:
        flight += f" · {snapshot.waiting_retries:,} waiting to try again"
    if snapshot.retries:
        most = sorted(snapshot.retries.items(), key=lambda item: -item[1])[:3]
        flight += " · retried: " + ", ".join(f"{code} ×{count:,}" for code, count in most)
    body.add_row("in flight", flight)
    if snapshot.cached_share is not None or snapshot.shared_after > 0:
        body.add_row("prefixes", _prefixes(snapshot))
    for server in snapshot.servers:
        body.add_row("server", _server_text(server))
    return Group(head, body)


def duration(seconds: float) -> str:
    """Return a length of time as people say it."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 172_800:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def _done(snapshot: Snapshot) -> str:
    if snapshot.total is None:
        return f"{snapshot.finished:,}"
    about = "" if snapshot.total_is_exact else "about "
    return f"{snapshot.finished:,} of {about}{snapshot.total:,}"


def _done_text(snapshot: Snapshot) -> Text:
    text = Text(_done(snapshot))
    if snapshot.done_before:
        text.append(f" ({snapshot.done_before:,} before)", style="dim")
    text.append(f" · {snapshot.failed:,} failed", style="red" if snapshot.failed else "dim")
    if snapshot.rejected:
        text.append(f" · {snapshot.rejected:,} bad lines", style="yellow")
    return text


def _tokens(snapshot: Snapshot) -> str:
    return f"{snapshot.prompt_tokens_per_s:,.0f} in + {snapshot.completion_tokens_per_s:,.0f} out"


def _prefixes(snapshot: Snapshot) -> str:
    parts = []
    if snapshot.cached_share is not None:
        parts.append(f"{snapshot.cached_share:.0%} of prompt tokens cached")
    if snapshot.shared_after > 0:
        parts.append(
            f"grouping: {snapshot.shared_after:.0%} shared, {snapshot.shared_before:.0%} in input order"
        )
    return " · ".join(parts)


def _server_text(server: ServerView) -> Text:
    text = Text(server.name)
    if not server.up:
        return text.append(f" · away: {server.problem}", style="red")
    text.append(f" · {server.in_flight} of {server.limit}", style="dim")
    if server.waiting is not None:
        text.append(f" · {server.waiting} queued", style="dim")
    if server.rt_running is not None:
        text.append(f" · RT {server.rt_running} running")
        if server.rt_attainment is not None:
            good = server.rt_attainment >= 0.99
            text.append(f", {server.rt_attainment:.1%} in time", style="green" if good else "red")
    return text


def _print_json(value: object) -> None:
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()
