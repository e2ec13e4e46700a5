"""What a run came to, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bros_sglang.cli.batch.progress import duration

if TYPE_CHECKING:
    from pathlib import Path

    from bros_sglang.cli.batch.run_record import RunRecord


def summary_lines(record: RunRecord, folder: Path) -> list[str]:
    """Return the lines for people, after a start has ended and for `bros batch status`."""
    counts, tokens = record.counts, record.tokens
    done = counts.ok + counts.failed + counts.rejected
    of_total = f" of {counts.total:,}" if counts.total is not None else ""
    lines = [f"{record.state}: {done:,}{of_total} done · {counts.ok:,} ok · {counts.failed:,} failed"]
    if counts.rejected:
        lines[0] += f" · {counts.rejected:,} bad lines"
    if record.reason:
        lines.append(record.reason)
    if tokens.prompt or tokens.completion:
        cached = ""
        if tokens.cached is not None:
            cached = f" ({tokens.cached / max(1, tokens.prompt):.1%} from the prefix cache)"
        lines.append(f"tokens: {tokens.prompt:,} in{cached} · {tokens.completion:,} out")
    session = record.sessions[-1] if record.sessions else None
    if session is not None and session.seconds:
        lines.append(
            f"this start: {session.finished:,} in {duration(session.seconds)} · "
            f"{session.requests_per_s:,.1f} requests/s · {session.tokens_per_s:,.0f} tokens/s"
        )
        lines.append(
            f"client: {session.client_cpu_s:,.1f} s CPU · {session.client_peak_mib:,.0f} MiB at most"
        )
        if session.retries:
            counted = sorted(session.retries.items(), key=lambda item: -item[1])
            lines.append("retried: " + ", ".join(f"{code} ×{count:,}" for code, count in counted))
        grouping = session.prefix_grouping
        if grouping is not None:
            lines.append(
                f"grouping: {grouping.as_sent:.0%} of prompt bytes repeat the request before "
                f"({grouping.in_input_order:.0%} in input order)"
            )
    if counts.no_longer_in_input:
        lines.append(f"{counts.no_longer_in_input:,} results belong to ids that the input no longer has")
    lines.append(f"results: {folder}")
    if counts.failed or counts.rejected:
        lines.append(f"errors:  {folder}/errors.jsonl; ask again: bros batch retry {folder}")
    return lines
