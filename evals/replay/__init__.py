"""Replay traffic through the real scheduler in virtual time.

The Scheduler, policy, PrefillAdder, allocator and radix cache are the ones that serve; what is replaced is
listed in `docs/replay.md`: the forward pass (`forward.py`), the device's events (`device.py`), the clock
(`clock.py`), where requests come from (`arrivals.py`) and where tokens go (`capture.py`).
"""
