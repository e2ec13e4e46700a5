"""When each request passed the two ends of the scheduler: reached its socket, gave its first and last token.

Times are `time.perf_counter`, one clock for all processes of a Linux host. With the times that a client
noted they tell what lies between client and scheduler.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.step_time.frontend import ClassFrontend, Frontend, quantiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bros_sglang.evals.metrics.run import Run

FLUSH_EVERY = 16  # lines
SENT, FIRST, LAST = "sent", "first", "last"


@dataclass(slots=True)
class RequestTimes:
    """One request; None where the recording has not seen it."""

    sent_s: float | None = None  # out of the tokenizer, into the scheduler's socket
    first_s: float | None = None  # first token out of the scheduler
    last_s: float | None = None


class RequestRecorder:
    """Writes a line per event; one per process, each with a file of its own."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._since_flush = 0

    def note(self, event: str, rid: str) -> None:
        """Write down that something happened to a request just now."""
        line = {"event": event, "rid": rid, "at_s": round(time.perf_counter(), 6)}
        self._file.write(json.dumps(line) + "\n")
        self._since_flush += 1
        if self._since_flush >= FLUSH_EVERY:
            self._since_flush = 0
            self._file.flush()


def requests_path(steps: Path, process: str) -> Path:
    """Return where a process of the server (`tokenizer`, `scheduler`) writes, beside the file of steps."""
    return steps.with_name(f"{steps.stem}-{process}.jsonl")


def read_request_times(steps: Path) -> dict[str, RequestTimes]:
    """Read what the processes of a server wrote, by request id; torn last lines are left out."""
    seen: dict[str, RequestTimes] = {}
    for process in ("tokenizer", "scheduler"):
        path = requests_path(steps, process)
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            one, name = seen.setdefault(entry["rid"], RequestTimes()), f"{entry['event']}_s"
            if getattr(one, name) is None:  # under overlap a finished request comes by once more
                setattr(one, name, entry["at_s"])
    return seen


def install_in_tokenizer(tokenizer_manager_class: Any, path: Path) -> None:
    """Wrap `_send_one_request` of the tokenizer manager class of this process."""
    recorder = RequestRecorder(path)
    send = tokenizer_manager_class._send_one_request

    async def recorded_send(self: Any, tokenized: Any, *args: Any, **kwargs: Any) -> Any:
        result = await send(self, tokenized, *args, **kwargs)
        recorder.note(SENT, tokenized.rid)
        return result

    tokenizer_manager_class._send_one_request = recorded_send


def note_outputs(recorder: RequestRecorder, batch: Any) -> None:
    """Note the requests of a batch whose result was just given out that got their first or last token."""
    for req in batch.reqs:
        if len(req.output_ids) == 1:
            recorder.note(FIRST, req.rid)
        if req.finished_reason is not None:
            recorder.note(LAST, req.rid)


def measured_frontend(runs: Sequence[Run], times: dict[str, RequestTimes], prefix: Sequence[str]) -> Frontend:
    """Return the ways that the requests of `runs` took; `prefix` is what each run put before its rids.

    Way in: from the time of arrival to the socket. Way back: from the scheduler to the client's stamp.
    Constant 0 where too little was recorded.
    """
    ways: dict[str, tuple[list[float], list[float]]] = {"rt": ([], []), "be": ([], [])}
    for run, before in zip(runs, prefix, strict=True):
        zero_s = run.facts.clock_zero_s
        if zero_s is None:
            continue
        for record in run.records:
            seen = times.get(before + record.rid)
            if seen is None:
                continue
            ways_in, ways_back = ways[record.request_class.value]
            if seen.sent_s is not None:
                ways_in.append(seen.sent_s - zero_s - record.arrival_s)
            if seen.first_s is not None and record.first_token_s is not None:
                ways_back.append(zero_s + record.first_token_s - seen.first_s)
            if seen.last_s is not None and record.finished and record.last_token_s is not None:
                ways_back.append(zero_s + record.last_token_s - seen.last_s)
    by_class = []
    for name, (ways_in, ways_back) in ways.items():
        in_s, back_s = quantiles(ways_in), quantiles(ways_back)
        if in_s is not None and back_s is not None:
            by_class.append((name, ClassFrontend(in_s, back_s)))
    return Frontend(by_class=tuple(by_class))
