"""Record the passes of a real scheduler: what each had to do, and how long it took.

Hooks on two methods of SGLang's `Scheduler` in a scheduler process of `recording_server`; bros' subclass
inherits them. One line of JSON per pass goes to a file. Nothing of this is loaded in any other server.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bros_sglang.evals.step_time.batch import step_of
from bros_sglang.evals.step_time.linear import StepTimeFileError
from bros_sglang.evals.step_time.request_times import RequestRecorder, note_outputs, requests_path
from bros_sglang.evals.step_time.step import Step

if TYPE_CHECKING:
    from pathlib import Path

FLUSH_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """One pass; moments are seconds of `time.perf_counter` in the scheduler's process."""

    step: Step
    launched_s: float  # before `run_batch`
    returned_s: float  # after it: on a device that computes synchronously (a CPU), the end of the pass
    done_s: float  # when its result was on the host
    after_idle: bool  # nothing had run just before

    def to_line(self) -> str:
        """Return the step as one line of JSON."""
        return json.dumps(
            {
                **asdict(self.step),
                "launched_s": round(self.launched_s, 7),
                "returned_s": round(self.returned_s, 7),
                "done_s": round(self.done_s, 7),
                "after_idle": self.after_idle,
            }
        )

    @classmethod
    def from_line(cls, line: str) -> RecordedStep:
        """Read a line that `to_line` wrote; raises ValueError, TypeError or KeyError where it is not one."""
        data = json.loads(line)
        own = {key: data.pop(key) for key in ("launched_s", "returned_s", "done_s", "after_idle")}
        return cls(Step(**{key: int(value) for key, value in data.items()}), **own)


def read_steps(path: Path) -> list[RecordedStep]:
    """Read a recorded file; a torn last line (the server was killed) is left out.

    Raises:
        StepTimeFileError: no such file, a broken line in its middle, or no step in it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StepTimeFileError(f"{path}: cannot be read ({error.strerror})") from error
    steps = []
    for number, line in enumerate(lines, 1):
        try:
            steps.append(RecordedStep.from_line(line))
        except (ValueError, TypeError, KeyError) as error:
            if number < len(lines):
                raise StepTimeFileError(f"{path}, line {number}: not a recorded step ({error!r})") from error
    if not steps:
        raise StepTimeFileError(f"{path}: no step was recorded")
    return steps


class StepRecorder:
    """Stamps passes and writes them to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._open: dict[int, tuple[Step, float, float, bool]] = {}  # by forward_iter
        self._flushed_s = time.perf_counter()

    def launched(self, iteration: int, step: Step, started_s: float, *, after_idle: bool) -> None:
        """Note a pass that has just been launched."""
        self._open[iteration] = (step, started_s, time.perf_counter(), after_idle)

    def done(self, iteration: int) -> None:
        """Note that the result of a pass is on the host, and write its line."""
        entry = self._open.pop(iteration, None)
        if entry is None:
            return
        now_s = time.perf_counter()
        step, launched_s, returned_s, after_idle = entry
        self._file.write(RecordedStep(step, launched_s, returned_s, now_s, after_idle).to_line() + "\n")
        if now_s - self._flushed_s > FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Put on disk what is written; also called when the scheduler idles."""
        self._file.flush()
        self._flushed_s = time.perf_counter()


def install(scheduler_class: Any, path: Path) -> None:
    """Wrap `run_batch`, `process_batch_result` and `on_idle` of the scheduler class of this process."""
    recorder = StepRecorder(path)
    requests = RequestRecorder(requests_path(path, "scheduler"))
    run_batch, process_result = scheduler_class.run_batch, scheduler_class.process_batch_result
    on_idle = scheduler_class.on_idle

    def recorded_run_batch(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        started_s = time.perf_counter()
        after_idle = bool(self._sched_idled)
        step = step_of(batch)
        result = run_batch(self, batch, *args, **kwargs)
        recorder.launched(batch.forward_iter, step, started_s, after_idle=after_idle)
        return result

    def recorded_process_result(self: Any, batch: Any, result: Any) -> Any:
        copied = getattr(result, "copy_done", None)
        if copied is not None:
            copied.synchronize()  # the stock method waits for the same event first thing
        recorder.done(batch.forward_iter)
        processed = process_result(self, batch, result)
        note_outputs(requests, batch)
        return processed

    def recorded_on_idle(self: Any) -> Any:
        if time.perf_counter() - recorder._flushed_s > FLUSH_EVERY_S:
            recorder.flush()
        return on_idle(self)

    scheduler_class.run_batch = recorded_run_batch
    scheduler_class.process_batch_result = recorded_process_result
    scheduler_class.on_idle = recorded_on_idle
