"""Device events that tell when a step ended."""

import threading
from typing import Any

import torch
from sglang.srt.managers.async_d2h_copy_worker import HostCopyDone

from bros_sglang.scheduler.scheduler import _StampedEvent


def test_the_first_wait_alone_is_the_end() -> None:
    ends: list[int] = []
    event = _StampedEvent(torch.cpu.Event(), lambda: ends.append(1))
    event.synchronize()
    event.synchronize()
    assert ends == [1]


def test_waits_for_the_event_before_it_reports() -> None:
    done = HostCopyDone()
    ends: list[bool] = []
    event = _StampedEvent(done, lambda: ends.append(done.query()))
    threading.Timer(0.01, done.set_done).start()
    event.synchronize()
    assert ends == [True]


def test_everything_else_is_the_events_own() -> None:
    done = HostCopyDone()
    event: Any = _StampedEvent(done, lambda: None)
    assert not event.query()
    done.set_done()
    assert event.query()
