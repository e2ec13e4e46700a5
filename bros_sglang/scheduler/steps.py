"""Note what each step computes and how long it took, as the scheduler sees it."""

from __future__ import annotations

import math
from typing import Any

from bros_sglang.policies.step_time import StepShape, StepTimeModel, pairs


def shape_of(batch: Any) -> StepShape:
    """Read the shape of a batch that is about to run, from host-side numbers only."""
    if not batch.forward_mode.is_extend():
        context = int(batch.seq_lens_cpu.sum())
        return StepShape(decode_rows=len(batch.reqs), decode_context=context)
    decoding = len(batch.decoding_reqs or ())
    prefills = len(batch.reqs) - decoding
    tokens, attended, context = 0, 0.0, 0
    for index, (prefix, new) in enumerate(zip(batch.prefix_lens, batch.extend_lens, strict=True)):
        if index < prefills:
            tokens += new
            attended += pairs(prefix, new)
        else:
            context += prefix + 1
    loaded = sum(getattr(req, "host_loaded_length", 0) or 0 for req in batch.reqs[:prefills])
    return StepShape(tokens, attended, decoding, context, loaded)


class _Launched:
    """A step that was launched and has not ended."""

    __slots__ = ("agreed_s", "launched_s", "predicted_s", "shape")

    def __init__(self, shape: StepShape, launched_s: float, agreed_s: float, predicted_s: float) -> None:
        self.shape = shape
        self.launched_s = launched_s  # on this rank's clock
        self.agreed_s = agreed_s  # no earlier than this, on the agreed clock, it could begin
        self.predicted_s = predicted_s


class StepMeter:
    """Matches launches with completions; durations run from the later of launch and previous completion.

    Measured on every rank, used from rank 0 alone: its measurements travel with the clock, and all ranks
    teach their (equal) models with them.
    """

    def __init__(self, model: StepTimeModel) -> None:
        self.model = model
        self.measured: list[tuple[int, float]] = []  # rank 0's, for the next tick
        self.last_predicted_s = 0.0
        self.last_actual_s = 0.0
        self._launched: dict[int, _Launched] = {}
        self._last_end_s = 0.0
        self._last_ended = 0  # number of the last step that ended

    def launched(self, step: int, shape: StepShape, now_s: float, agreed_s: float) -> None:
        """Note that step number `step` was launched, on this rank's clock and on the agreed one."""
        self._launched[step] = _Launched(shape, now_s, agreed_s, self.model.predict(shape))
        if len(self._launched) > 64:  # steps whose results were never processed (an engine pause, say)
            del self._launched[next(iter(self._launched))]

    def ended(self, step: int, now_s: float) -> None:
        """Note that a step's result is there, on this rank's clock."""
        entry = self._launched.get(step)
        if entry is not None:
            self.measured.append((step, now_s - max(entry.launched_s, self._last_end_s)))
        self._last_end_s = now_s
        self._last_ended = max(step, self._last_ended)

    def drain(self) -> tuple[tuple[int, float], ...]:
        """Return the measurements since the last call."""
        measured, self.measured = tuple(self.measured), []
        return measured

    def learn(self, measured: tuple[tuple[int, float], ...], agreed_s: float) -> None:
        """Teach the model with rank 0's measurements, which arrived at the agreed time `agreed_s`."""
        for step, seconds in measured:
            entry = self._launched.pop(step, None)
            if entry is not None:
                self.last_predicted_s, self.last_actual_s = entry.predicted_s, seconds
                self.model.observe(entry.shape, seconds)
            following = self._launched.get(step + 1)
            if following is not None:
                # It was queued behind the one that ended: it begins now, not at its launch.
                following.agreed_s = max(following.agreed_s, agreed_s)

    def running(self, step: int) -> tuple[float, float] | None:
        """Return when step number `step` began, on this rank's clock, and how long it is predicted to take.

        None if it has ended, or was never launched.
        """
        entry = self._launched.get(step)
        if entry is None or step <= self._last_ended:
            return None
        return max(entry.launched_s, self._last_end_s), entry.predicted_s

    def in_flight_s(self, step: int, agreed_now_s: float) -> float:
        """Return the predicted time until step number `step`, the last one launched, ends."""
        end_s = -math.inf
        for number in (step - 1, step):
            entry = self._launched.get(number)
            if entry is not None:
                # Steps run one after the other: a queued one begins when the one before it ends.
                begin_s = max(entry.agreed_s, end_s)
                end_s = begin_s + entry.predicted_s
        return max(0.0, end_s - agreed_now_s)
