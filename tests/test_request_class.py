from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.request_class import PriorityRule, RequestClass, Tag, TagError, class_of, parse_tag


def test_a_full_tag() -> None:
    tag = parse_tag({"bros": {"class": "rt", "ttft_ms": 200, "tpot_ms": 12.5}, "other": 1})
    assert tag == Tag(RequestClass.RT, 200.0, 12.5, None)
    assert parse_tag({"bros": {"class": "be", "deadline_s": 3600}}).deadline_s == 3600.0


@pytest.mark.parametrize(
    "params", [None, {}, {"bros": None}, {"other": {"class": "x"}}, "text", {"bros": {}}]
)
def test_no_tag_is_an_empty_tag(params: Any) -> None:
    assert parse_tag(params) == Tag()


@pytest.mark.parametrize(
    ("tag", "field"),
    [
        ({"class": "realtime"}, "class"),
        ({"class": 1}, "class"),
        ({"ttft_ms": -1}, "ttft_ms"),
        ({"ttft_ms": 0}, "ttft_ms"),
        ({"ttft_ms": math.nan}, "ttft_ms"),
        ({"tpot_ms": 1e12}, "tpot_ms"),
        ({"tpot_ms": math.inf}, "tpot_ms"),
        ({"tpot_ms": "fast"}, "tpot_ms"),
        ({"ttft_ms": True}, "ttft_ms"),
        ({"deadline_s": [1]}, "deadline_s"),
        ({"clas": "rt"}, "clas"),
        ("rt", "bros"),
        ([], "bros"),
    ],
)
def test_a_malformed_tag_names_the_field(tag: Any, field: str) -> None:
    with pytest.raises(TagError, match=rf"custom_params\.bros.*{field}|custom_params\.{field}"):
        parse_tag({"bros": tag})


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.dictionaries(st.text(), x))
)
def test_anything_else_is_a_tag_or_a_tag_error(params: Any) -> None:
    try:
        tag = parse_tag({"bros": params})
    except TagError:
        return
    assert tag.ttft_ms is None or 0 < tag.ttft_ms < math.inf


def test_priorities_name_classes() -> None:
    rule = PriorityRule()
    assert rule.class_of(1) is RequestClass.RT
    assert rule.class_of(-1) is RequestClass.BE
    assert rule.class_of(0) is None
    assert rule.class_of(None) is None
    assert rule.class_of(-(2**63)) is None  # SGLang's mark for unset
    assert PriorityRule(10, 0).class_of(5) is None


def test_a_request_that_bros_has_not_seen_is_real_time() -> None:
    assert class_of(SimpleNamespace()) is RequestClass.RT
    assert class_of(SimpleNamespace(bros=SimpleNamespace(request_class=RequestClass.BE))) is RequestClass.BE
