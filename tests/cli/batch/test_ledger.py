"""Appending: order, durability, and a disk that refuses half-way."""

import asyncio
import errno
import os

import pytest

from bros_sglang.cli.batch.ledger import Ledger
from bros_sglang.cli.batch.problem import StoppedError
from bros_sglang.cli.batch.run_folder import RunFolder


async def test_lines_arrive_in_order_and_whole(tmp_path):
    folder = RunFolder(tmp_path)
    async with Ledger(folder) as ledger:
        for number in range(1000):
            ledger.append_output(b"%d\n" % number)
            if number % 100 == 0:
                ledger.append_error(b"e%d\n" % number)
                await asyncio.sleep(0.03)
    assert folder.output.read_bytes().split() == [b"%d" % number for number in range(1000)]
    assert len(folder.errors.read_bytes().split()) == 10
    assert (ledger.kept_output, ledger.kept_errors) == (1000, 10)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
async def test_a_disk_that_refuses_keeps_whole_lines(tmp_path, monkeypatch, code):
    folder = RunFolder(tmp_path)
    real_write, room = os.write, [25]

    def write(handle, data):
        if room[0] == 0:
            raise OSError(code, os.strerror(code))
        count = real_write(handle, bytes(data)[: room[0]])
        room[0] -= count
        return count

    async with Ledger(folder) as ledger:
        monkeypatch.setattr(os, "write", write)
        for number in range(10):
            ledger.append_output(b"line %d\n" % number)
        await asyncio.wait_for(ledger.failed.wait(), 10)
        with pytest.raises(StoppedError, match="run the same command again"):
            await ledger.room()
        ledger.append_output(b"never\n")
    monkeypatch.undo()
    assert folder.output.read_bytes() == b"line 0\nline 1\nline 2\n"
    assert ledger.kept_output == 3
