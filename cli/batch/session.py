"""One start of a run, from the locked folder to the last line of run.json."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bros_sglang.cli.batch.concurrency import Concurrency
from bros_sglang.cli.batch.corpus import Corpus
from bros_sglang.cli.batch.finish import put_in_order, write_parquet
from bros_sglang.cli.batch.lane import Lane
from bros_sglang.cli.batch.ledger import Ledger
from bros_sglang.cli.batch.prefix_order import PrefixOrder
from bros_sglang.cli.batch.preparation import make_builder
from bros_sglang.cli.batch.problem import RefusedError, StoppedError
from bros_sglang.cli.batch.record_book import RecordBook
from bros_sglang.cli.batch.request_builder import TemplateBuilder
from bros_sglang.cli.batch.run_record import RunRecord, State, parse_timestamp
from bros_sglang.cli.batch.runner import Runner
from bros_sglang.cli.batch.snapshot import Observer
from bros_sglang.cli.batch.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.cli.batch.backend import Backend
    from bros_sglang.cli.batch.preparation import Prepared
    from bros_sglang.cli.batch.progress import Display

SHOW_EVERY_S: Final = 0.5
RECORD_EVERY_S: Final = 5.0


@dataclass(slots=True)
class Outcome:
    """How one start ended."""

    state: State
    record: RunRecord
    reason: str | None = None


async def work(prepared: Prepared, backends: Sequence[Backend], display: Display) -> Outcome:
    """Send what is not done, and finish the files. Raises RefusedError before anything is sent."""
    settings = prepared.settings
    lanes = [
        Lane(
            number,
            backend,
            Concurrency(
                initial=settings.initial_concurrency,
                maximum=settings.max_concurrency,
                fixed=settings.fixed_concurrency,
            ),
            time.monotonic,
            settings.tag,
        )
        for number, backend in enumerate(backends)
    ]
    try:
        await _connect(lanes, display)
        return await _work(prepared, lanes, display)
    finally:
        await asyncio.gather(*(lane.close() for lane in lanes))


async def _connect(lanes: Sequence[Lane], display: Display) -> None:
    """Reach the servers; some may be away, not all. Raises RefusedError."""
    problems: list[str] = []
    for lane in lanes:
        try:
            await lane.connect()
        except ConnectionError as error:
            problems.append(str(error))
            lane.go_down(str(error))
    if len(problems) == len(lanes):
        raise RefusedError(f"{'; '.join(problems)}; is the server running?")
    for problem in problems:
        display.note(f"{problem}; going on without it until it is back")


async def _work(prepared: Prepared, lanes: Sequence[Lane], display: Display) -> Outcome:
    settings, record, recovered = prepared.settings, prepared.record, prepared.recovered
    served = [name for lane in lanes if lane.facts for name in lane.facts.models]
    builder = make_builder(settings, prepared.sources, model=served[0] if served else "")
    if isinstance(builder, TemplateBuilder) and not builder.model_name:
        raise RefusedError("the server names no model: say --model-name")
    corpus = Corpus(prepared.sources, builder)
    if settings.check_model and served:
        corpus.model_problem = _ModelCheck(served, lanes[0].backend.name)
    order = PrefixOrder(settings.window)
    tally = Tally(
        before_ok=recovered.ok,
        before_failed=recovered.failed,
        before_rejected=recovered.rejected,
        tokens=recovered.tokens,
    )
    record.servers = {lane.backend.name: lane.facts.software if lane.facts else "away" for lane in lanes}
    start_s = time.monotonic()
    deadline = parse_timestamp(record.deadline_at) if record.deadline_at else None
    state: State = "finished"
    reason: str | None = None
    async with Ledger(prepared.folder) as ledger:
        runner = Runner(settings, lanes, ledger, tally, deadline)
        book = RecordBook(prepared, corpus, order, tally, start_s)
        with _signals(runner, display):
            watcher = asyncio.create_task(
                _watch(runner, book, Observer(corpus, order, tally, lanes), display)
            )
            try:
                book.write()
                await runner.run(order.windows(corpus.read(prepared.index)))
            except StoppedError as error:
                state, reason = "stopped", str(error)
            except RefusedError as error:
                book.close("stopped", str(error))
                raise
            except OSError as error:
                state, reason = "stopped", f"run.json cannot be written: {error.strerror}"
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
    if ledger.problem is not None:
        state, reason = "stopped", str(ledger.problem)
        tally.ok = ledger.kept_output
        tally.failed, tally.rejected = ledger.kept_errors, 0
    elif state == "finished" and not runner.feed.is_done:
        state, reason = "interrupted", "stopped by the user"
    book.update(ended=runner.input_ended)
    if state == "finished":
        record.counts.no_longer_in_input = prepared.index.unmet()
        state, reason = await _finish_files(prepared, display)
    book.close(state, reason)
    return Outcome(state, record, reason)


async def _finish_files(prepared: Prepared, display: Display) -> tuple[State, str | None]:
    settings = prepared.settings
    try:
        if settings.ordered:
            display.note("putting output.jsonl in the input's order")
            await asyncio.to_thread(put_in_order, prepared.folder, prepared.index)
        if settings.to == "parquet":
            display.note("writing output.parquet")
            await asyncio.to_thread(write_parquet, prepared.folder)
    except OSError as error:
        return "stopped", f"every answer is in output.jsonl, but finishing failed: {error.strerror}"
    return "finished", None


class _ModelCheck:
    """Why a model cannot be asked for; SGLang also serves `base:adapter`."""

    def __init__(self, served: Sequence[str], server: str) -> None:
        self._served = frozenset(served)
        self._names = ", ".join(sorted(self._served)[:5])
        self._server = server

    def __call__(self, model: str) -> str | None:
        if model in self._served or model.split(":")[0] in self._served:
            return None
        return (
            f"model {model!r} is not served by {self._server} (it serves {self._names}); "
            "--model-name NAME asks for another"
        )


async def _watch(runner: Runner, book: RecordBook, observer: Observer, display: Display) -> None:
    """Show progress, and write run.json now and then."""
    written_s = time.monotonic()
    while True:
        now_s = time.monotonic()
        display.show(
            observer.read(now_s, input_ended=runner.input_ended, waiting_retries=runner.feed.waiting_retries)
        )
        if now_s - written_s >= RECORD_EVERY_S:
            written_s = now_s
            try:
                await asyncio.to_thread(book.write, ended=runner.input_ended)
            except OSError as error:
                runner.stop(
                    StoppedError(f"run.json cannot be written: {error.strerror}; make room, run again")
                )
        await asyncio.sleep(SHOW_EVERY_S)


class _signals:  # noqa: N801 (used as a with-statement)
    """Ctrl-C or SIGTERM: once, what is in flight ends; twice, it is dropped."""

    def __init__(self, runner: Runner, display: Display) -> None:
        self._runner, self._display = runner, display
        self._loop = asyncio.get_running_loop()
        # A worker thread of somebody's pipeline hears no signals.
        heard = threading.current_thread() is threading.main_thread()
        self._names = (signal.SIGINT, signal.SIGTERM) if heard else ()

    def __enter__(self) -> None:
        for name in self._names:
            self._loop.add_signal_handler(name, self._on_signal)

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self._loop.remove_signal_handler(name)

    def _on_signal(self) -> None:
        if self._runner.interrupted:
            self._runner.abandon()
            return
        in_flight = sum(lane.in_flight for lane in self._runner.lanes)
        self._display.note(f"stopping: {in_flight} in flight are finished first; Ctrl-C again drops them")
        self._runner.interrupt()
