from __future__ import annotations

from typing import Any

import pytest
from sglang.srt.server_args import ServerArgs

from bros_sglang.refusals import REFUSALS, refused_features


def _args(**overrides: Any) -> ServerArgs:
    return ServerArgs(model_path="none", schedule_policy="bros", **overrides)


def test_a_plain_server_is_accepted() -> None:
    assert refused_features(_args()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pp_size", 2),
        ("disaggregation_mode", "prefill"),
        ("dllm_algorithm", "LowConfidence"),
        ("speculative_algorithm", "EAGLE"),
        ("enable_dp_attention", True),
        ("dp_size", 2),
        ("tokenizer_worker_num", 2),
        ("enable_priority_scheduling", True),
        ("disable_radix_cache", True),
        ("chunked_prefill_size", -1),
        ("radix_eviction_policy", "lfu"),
        ("radix_cache_backend", "mine"),
    ],
)
def test_an_unsupported_feature_is_refused_by_its_flag(field: str, value: Any) -> None:
    lines = refused_features(_args(**{field: value}))
    assert len(lines) == 1
    assert "--" + field.replace("_", "-") in lines[0]
    assert "--policy bros" in lines[0]


def test_every_refusal_reads_a_field_that_sglang_has() -> None:
    server_args = _args()
    for item in REFUSALS:
        assert hasattr(server_args, item.field), item.field
