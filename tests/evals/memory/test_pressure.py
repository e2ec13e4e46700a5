"""What the variants of the pressure replays change."""

import pytest
import torch

from bros_sglang.evals.memory import pressure
from bros_sglang.memory import radix_cache
from bros_sglang.memory.allocator import BidirectionalTokenToKVPoolAllocator
from bros_sglang.request_class import RequestClass
from bros_sglang.settings import BrosSettings


@pytest.mark.parametrize("name", pressure.VARIANTS)
def test_settings_are_settings(name):
    BrosSettings(**pressure.VARIANTS[name].settings)


def test_one_end_places_best_effort_with_real_time(monkeypatch):
    monkeypatch.setattr(
        BidirectionalTokenToKVPoolAllocator, "alloc", BidirectionalTokenToKVPoolAllocator.alloc
    )
    allocator = BidirectionalTokenToKVPoolAllocator(100, torch.float16, "cpu", None, need_sort=False)
    with allocator.declare_batch([False], [10]):
        assert allocator.alloc(10).max() == 10
    pressure.VARIANTS["one end"].patch()
    with allocator.declare_batch([False], [10]):
        assert allocator.alloc(10).min() == 91


def test_lru_knows_no_class(monkeypatch):
    monkeypatch.setattr(radix_cache, "node_priority", radix_cache.node_priority)
    pressure.VARIANTS["lru"].patch()
    assert radix_cache.node_priority(RequestClass.RT, 7, 3) == radix_cache.node_priority(
        RequestClass.BE, 1, 0
    )
