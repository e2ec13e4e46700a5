"""Draw a `BrosStatus` for a terminal of 80 columns or more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bros_sglang.status import BrosStatus, ClassStatus, SchedulerStatus

MIN_WIDTH: Final = 60
MAX_WIDTH: Final = 120
MAX_BARS: Final = 4  # schedulers whose KV is drawn

BE_RUNNING, BE_CACHED, RT_RUNNING, RT_CACHED, HOLE, FREE = "▓", "░", "█", "▒", "·", " "
_STYLES: Final = {
    BE_RUNNING: "cyan",
    BE_CACHED: "dim cyan",
    RT_RUNNING: "magenta",
    RT_CACHED: "dim magenta",
    HOLE: "dim",
    FREE: "",
}


def render(status: BrosStatus, width: int, note: Text | None = None) -> Group:
    """Return the whole view."""
    width = min(max(width, MIN_WIDTH), MAX_WIDTH)
    parts: list[RenderableType] = [_head(status, width), Text(""), _classes(status), Text("")]
    parts += [_attainment(status), _slack(status), Text("")]
    for scheduler in status.schedulers[:MAX_BARS]:
        parts += _kv(scheduler, width, many=len(status.schedulers) > 1)
    if len(status.schedulers) > MAX_BARS:
        parts.append(Text(f"… and {len(status.schedulers) - MAX_BARS} more schedulers", style="dim"))
    parts += [Text(""), _preemptions(status), _step_time(status)]
    if note is not None:
        parts += [Text(""), note]
    return Group(*parts)


class Cells(NamedTuple):
    """How many cells of the KV bar each part takes; they add up to the bar's width."""

    be_running: int
    be_cached: int
    be_holes: int  # free slots behind BE's frontier
    free: int  # between the frontiers
    rt_holes: int
    rt_cached: int
    rt_running: int


def kv_cells(scheduler: SchedulerStatus, width: int) -> Cells:
    """Split a bar of `width` cells as the pool is split: BE from the left, RT from the right.

    Within a class, running comes first: where its slots really lie between the pool's end and the frontier
    is not part of the status. Anything that is there takes at least one cell, if there is room.
    """
    kv, rt, be = scheduler.kv, scheduler.rt.kv, scheduler.be.kv
    be_held, rt_held = be.running_tokens + be.cached_tokens, rt.running_tokens + rt.cached_tokens
    be_end = kv.be_frontier if kv.be_frontier is not None else be_held
    rt_start = kv.rt_frontier if kv.rt_frontier is not None else kv.pool_tokens - rt_held
    tokens = [
        be.running_tokens,
        be.cached_tokens,
        max(0, be_end - be_held),
        max(0, rt_start - be_end),
        max(0, kv.pool_tokens - rt_start - rt_held),
        rt.cached_tokens,
        rt.running_tokens,
    ]
    total = max(1, sum(tokens))
    cells = [max(round(part * width / total), 1 if part else 0) for part in tokens]
    while (excess := sum(cells) - width) != 0:
        widest = max(range(len(cells)), key=cells.__getitem__)
        cells[widest] -= max(-width, min(excess, max(1, cells[widest] - 1)))
    return Cells(*cells)


def _head(status: BrosStatus, width: int) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(status.time_s))
    left = f"bros-sglang {status.bros_version} · policy {status.policy}"
    if status.model:
        left += f" · {status.model}"
    left += f" · up {_duration(status.uptime_s)}"
    room = width - len(clock) - 1
    if len(left) > room:
        left = left[: room - 1] + "…"
    text = Text(left.ljust(room) + " " + clock, style="bold")
    if status.policy != "bros":
        text.append("\nthe bros policy is off: classes are told apart by nothing here", style="yellow")
    return text


def _classes(status: BrosStatus) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    names = ("", "running", "parked", "waiting", "in tok/s", "out tok/s", "hit", "KV", "+cached")
    for name in names:
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, style, part in (("RT", "magenta", status.rt), ("BE", "cyan", status.be)):
        table.add_row(Text(name, style=f"bold {style}"), *_class_cells(status, part, parks=name == "BE"))
    return table


def _class_cells(status: BrosStatus, part: ClassStatus, *, parks: bool) -> list[str]:
    minute = part.last_minute
    pool = max(1, sum(scheduler.kv.pool_tokens for scheduler in status.schedulers))
    hit = minute.cached_tokens_per_s / minute.prompt_tokens_per_s if minute.prompt_tokens_per_s else None
    return [
        f"{part.running:,}",
        f"{part.parked:,}" if parks else "–",
        f"{part.waiting:,}",
        f"{minute.prompt_tokens_per_s:,.0f}",
        f"{minute.output_tokens_per_s:,.0f}",
        "–" if hit is None else f"{hit:.0%}",
        f"{part.kv.running_tokens / pool:.0%}",
        f"{part.kv.cached_tokens / pool:.0%}",
    ]


def _attainment(status: BrosStatus) -> Text:
    minute, targets = status.rt.last_minute, status.config.rt_targets
    text = Text("RT in time  ", style="bold")
    if minute.attainment is None:
        return text.append("no RT request with targets finished in the last minute", style="dim")
    text.append(f"{minute.attainment:.1%}", style="green" if minute.attainment >= 0.99 else "bold red")
    for name, share, target in (
        ("TTFT", minute.ttft_attainment, targets.ttft_ms),
        ("TPOT", minute.tpot_attainment, targets.tpot_ms),
    ):
        if share is not None:
            text.append(f" · {name} {share:.1%}" + (f" ≤{target:g} ms" if target is not None else ""))
    return text.append(f" · {minute.finished:,} done", style="dim")


def _slack(status: BrosStatus) -> Text:
    text = Text("slack       ", style="bold")
    slack_s = status.tightest_slack_s
    if slack_s is None:
        text.append("no RT in the server", style="dim")
    else:
        text.append(f"{slack_s * 1000:,.0f} ms to next deadline", style="red" if slack_s < 0 else "")
    lent_s = sum(scheduler.slack.lent_s_total for scheduler in status.schedulers)
    if status.be.oldest_waiting_s is not None:
        text.append(f" · BE waits up to {_duration(status.be.oldest_waiting_s)}")
    return text.append(f" · lent {_duration(lent_s)}", style="dim")


def _kv(scheduler: SchedulerStatus, width: int, *, many: bool) -> list[RenderableType]:
    kv = scheduler.kv
    name = f"KV of rank {scheduler.dp_rank}" if many else "KV"
    free = kv.free_tokens / max(1, kv.pool_tokens)
    title = Text(f"{name}: {kv.pool_tokens:,} tokens, {free:.0%} free ", style="bold")
    if kv.host_tokens:
        title.append(f"(host {(kv.host_used_tokens or 0) / kv.host_tokens:.0%} used) ")
    for glyph, meaning in (
        (BE_RUNNING, "BE"),
        (BE_CACHED, "BE cached"),
        (RT_CACHED, "RT cached"),
        (RT_RUNNING, "RT"),
    ):
        title.append(f" {glyph} ", style=_STYLES[glyph]).append(meaning, style="dim")
    cells = kv_cells(scheduler, width - 2)
    glyphs = (BE_RUNNING, BE_CACHED, HOLE, FREE, HOLE, RT_CACHED, RT_RUNNING)
    bar = Text("▕")
    for count, glyph in zip(cells, glyphs, strict=True):
        bar.append(glyph * count, style=_STYLES[glyph])
    bar.append("▏")
    parts: list[RenderableType] = [title, bar]
    if kv.be_frontier is not None and kv.rt_frontier is not None:
        parts.append(_frontiers(cells, kv.be_frontier, kv.rt_frontier, width))
    return parts


def _frontiers(cells: Cells, be_frontier: int, rt_frontier: int, width: int) -> Text:
    """Draw both marks under the bar: BE's left of its label, RT's right of its own, never overlapping."""
    be_at = 1 + cells.be_running + cells.be_cached + cells.be_holes
    rt_at = be_at + cells.free - 1
    be_text, rt_text = f"BE frontier {be_frontier:,}", f"RT frontier {rt_frontier:,}"
    line = [" "] * width
    be_label = be_at - len(be_text) - 1 if be_at > len(be_text) else be_at + 2
    rt_label = rt_at + 2 if rt_at + 2 + len(rt_text) <= width else rt_at - len(rt_text) - 1
    if rt_label <= be_label + len(be_text) and rt_label + len(rt_text) >= be_label:
        both = f"{be_text} · {rt_text}"
        start = min(max(0, be_at - len(both) // 2), width - len(both))
        return Text(" " * start + both, style="dim")
    for start, label in ((be_label, be_text), (rt_label, rt_text)):
        for offset, char in enumerate(label):
            if 0 <= start + offset < width:
                line[start + offset] = char
    for at in (min(be_at, width - 1), min(max(rt_at, 0), width - 1)):
        line[at] = "↑"
    return Text("".join(line).rstrip(), style="dim")


def _preemptions(status: BrosStatus) -> Text:
    total = status.preemptions
    text = Text("preempted   ", style="bold")
    text.append(f"{total.preempted_last_minute:,} last min · {total.preempted_total:,} in all")
    kept, redone = _short(total.restored_tokens_total), _short(total.recomputed_tokens_total)
    return text.append(f" · {kept} tok kept, {redone} redone", style="dim")


def _step_time(status: BrosStatus) -> Text:
    text = Text("step time   ", style="bold")
    step = status.schedulers[0].step_time
    if step.last_actual_s is None:
        return text.append("no pass in the last minute", style="dim")
    text.append(f"{step.last_actual_s * 1000:.1f} ms")
    if step.last_predicted_s is not None:
        text.append(f", predicted {step.last_predicted_s * 1000:.1f} ms")
    if step.mean_abs_error is not None:
        text.append(f" · error {step.mean_abs_error:.0%}")
        if step.p99_abs_error is not None:
            text.append(f", p99 {step.p99_abs_error:.0%}")
    return text.append(f" · {step.passes:,} passes/min", style="dim")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if seconds < 3600:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _short(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 10 * size:
            return f"{count / size:,.0f} {unit}"
    return f"{count:,}"
