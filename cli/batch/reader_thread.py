"""Read the input beside the event loop, one window ahead of need.

A daemon thread and no executor: a read of standard input cannot be cancelled, and must not keep a process
alive that has been told to stop.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bros_sglang.cli.batch.prefix_order import Window


class ReaderThread:
    """Windows of an iterator, on demand."""

    def __init__(self, windows: Iterator[Window]) -> None:
        self._windows = windows
        self._go = threading.Semaphore(1)  # the first window is read at once
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Queue[Window | BaseException | None] = asyncio.Queue()
        threading.Thread(target=self._run, name="batch-reader", daemon=True).start()

    async def next(self) -> Window | None:
        """Return the next window and begin to read the one after it; None at the end.

        Raises what reading raised.
        """
        item = await self._ready.get()
        if isinstance(item, BaseException):
            raise item
        self._go.release()
        return item

    def _run(self) -> None:
        while True:
            self._go.acquire()
            item: Window | BaseException | None
            try:
                item = next(self._windows, None)
            except BaseException as error:  # noqa: BLE001 (handed to the one who waits)
                item = error
            try:
                self._loop.call_soon_threadsafe(self._ready.put_nowait, item)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            if item is None or isinstance(item, BaseException):
                return
