from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bros_sglang import cpu_platform
from bros_sglang.cpu_platform.attention import QueryCroppedAttnBackend


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SGLANG_PLATFORM", raising=False)
    monkeypatch.delenv("SGLANG_USE_CPU_ENGINE", raising=False)
    monkeypatch.setattr(cpu_platform, "_accelerator_present", lambda: False)


def test_it_serves_where_nothing_else_does() -> None:
    assert cpu_platform.activate() == "bros_sglang.cpu_platform.platform.BrosCpuPlatform"


def test_it_stands_back_for_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_platform, "_accelerator_present", lambda: True)
    assert cpu_platform.activate() is None
    monkeypatch.setenv("SGLANG_PLATFORM", "bros-cpu")
    assert cpu_platform.activate() is not None


def test_it_stands_back_for_another_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint(name, "m:f", "sglang.srt.platforms") for name in ("bros-cpu", "other")]
    monkeypatch.setattr(cpu_platform, "entry_points", lambda group: points)
    assert cpu_platform.activate() is None


def test_it_stands_back_for_sglangs_own_cpu_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SGLANG_USE_CPU_ENGINE", "1")
    assert cpu_platform.activate() is None


@pytest.mark.parametrize(("prefixes", "news"), [([0], [5]), ([7], [4]), ([0, 3, 10], [6, 1, 4])])
def test_cropped_attention_equals_the_formula(prefixes: list[int], news: list[int]) -> None:
    """Each new row attends to its own context: checked against the formula, row by row."""
    torch.manual_seed(0)
    heads, kv_heads, size, slots = 4, 2, 8, 64
    keys, values = torch.randn(slots, kv_heads, size), torch.randn(slots, kv_heads, size)
    table = torch.stack([torch.randperm(slots - 1)[:32] + 1 for _ in prefixes])
    query = torch.randn(sum(news), heads, size)
    backend: Any = SimpleNamespace()
    got = QueryCroppedAttnBackend._run_sdpa_forward_extend(
        backend,
        query,
        torch.empty_like(query),
        keys,
        values,
        table,
        torch.arange(len(prefixes)),
        torch.tensor([p + n for p, n in zip(prefixes, news, strict=True)]),
        torch.tensor(prefixes),
        torch.tensor(news),
        scaling=1 / math.sqrt(size),
        enable_gqa=True,
        causal=True,
    )
    row = 0
    for request, (prefix, new) in enumerate(zip(prefixes, news, strict=True)):
        for position in range(prefix, prefix + new):
            context = table[request, : position + 1]
            for head in range(heads):
                k, v = keys[context, head // 2], values[context, head // 2]
                weights = torch.softmax(k @ query[row, head] / math.sqrt(size), 0)
                torch.testing.assert_close(got[row, head], weights @ v, rtol=1e-4, atol=1e-5)
            row += 1


def test_torchs_profiler_can_be_turned_on() -> None:
    import torch

    from bros_sglang.cpu_platform.platform import BrosCpuPlatform

    platform = BrosCpuPlatform()
    named = getattr(torch.profiler.ProfilerActivity, platform.get_torch_profiler_activity_str())
    assert platform.get_torch_profiler_activity() is named
