"""Imported once, by the process that replays are forked from: the imports cost more than a short replay."""

from __future__ import annotations

import os

# Replays run on the CPU wherever they run, and one of them uses one core.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import sglang.srt.managers.scheduler
import sglang.srt.server_args  # noqa: F401

import bros_sglang.evals.replay.scheduler_job  # noqa: F401
