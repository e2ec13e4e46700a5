"""Which tag is in force; programs are tried on a live server in tests/serve/test_tagging.py."""

from __future__ import annotations

import pytest

from bros_sglang import lang
from bros_sglang.request_class import TagError


def test_the_innermost_block_counts() -> None:
    assert lang.tagged({"max_new_tokens": 4}) == {"max_new_tokens": 4}
    with lang.realtime(ttft_ms=200, tpot_ms=30):
        with lang.realtime(tpot_ms=20):
            assert lang.tagged()["custom_params"] == {"bros": {"class": "rt", "ttft_ms": 200, "tpot_ms": 20}}
        with lang.best_effort(deadline_s=60):
            assert lang.tagged()["custom_params"] == {"bros": {"class": "be", "deadline_s": 60}}
            assert lang.tagged(request_class="rt")["custom_params"] == {"bros": {"class": "rt"}}
    assert lang.tagged() == {}


def test_other_parameters_stay() -> None:
    given = {"temperature": 0, "custom_params": {"thinking_budget": 3}}
    made = lang.tagged(given, request_class="be")
    assert made == {"temperature": 0, "custom_params": {"thinking_budget": 3, "bros": {"class": "be"}}}
    assert given["custom_params"] == {"thinking_budget": 3}


def test_rubbish_is_refused_where_it_is_written() -> None:
    for make in (
        lambda: lang.realtime(ttft_ms=0),
        lambda: lang.realtime(tpot_ms=float("nan")),
        lambda: lang.best_effort(deadline_s=-1),
        lambda: lang.tagged(request_class="urgent"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TagError):
            make()
