"""Passes of a scheduler, timed part by part."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bros_sglang.evals.gpu.pass_server import PassRecorder
from bros_sglang.evals.gpu.passes import read_passes


class Mode:
    def __init__(self, decode: bool) -> None:
        self._decode = decode

    def is_decode(self) -> bool:
        return self._decode


class Scheduler:
    """What an overlap loop calls; a pass is launched before the one before it is processed."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches
        self.waited: list[int] = []

    def get_next_batch_to_run(self) -> Any:
        return self.batches.pop(0) if self.batches else None

    def run_batch(self, batch: Any) -> Any:
        return SimpleNamespace(
            copy_done=SimpleNamespace(synchronize=lambda: self.waited.append(batch.forward_iter))
        )

    def process_batch_result(self, batch: Any, result: Any) -> str:
        return f"processed {batch.forward_iter}"

    def on_idle(self) -> str:
        return "idle"


def test_every_pass_has_its_line_and_the_methods_do_what_they_did(tmp_path: Path) -> None:
    batches = [
        SimpleNamespace(forward_iter=index, reqs=[0] * index, forward_mode=Mode(index > 1))
        for index in (1, 2, 3)
    ]
    scheduler = Scheduler(list(batches))
    recorder = PassRecorder(tmp_path / "passes.jsonl", count_waits=False)
    recorder.install(scheduler)
    last: Any = None
    while (batch := scheduler.get_next_batch_to_run()) is not None or last is not None:
        result = scheduler.run_batch(batch) if batch is not None else None
        if last is not None:
            assert scheduler.process_batch_result(*last) == f"processed {last[0].forward_iter}"
        last = None if batch is None else (batch, result)
    recorder._written_s = 0.0
    assert scheduler.on_idle() == "idle"
    passes = read_passes(tmp_path / "passes.jsonl")
    assert [one["rows"] for one in passes] == [1, 2, 3]
    assert [one["decode"] for one in passes] == [False, True, True]
    assert scheduler.waited == [1, 2, 3]
    for one in passes:
        assert one["waits"] == 0
        assert one["done_s"] >= one["launched_s"]
        assert min(one["decide_s"], one["launch_s"], one["process_s"], one["wait_s"]) >= 0.0
