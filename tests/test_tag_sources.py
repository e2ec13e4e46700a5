"""Headers, service tiers and the order of precedence."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.request_class import RequestClass, Tag, TagError, parse_tag
from bros_sglang.settings import BrosSettings
from bros_sglang.tag_sources import (
    BEST_EFFORT_TIERS,
    REAL_TIME_TIERS,
    as_custom_params,
    merge,
    tag_of_headers,
    tag_of_tier,
    tier_served,
)

MS = st.floats(0.001, 3_600_000.0)
TAGS = st.builds(
    Tag,
    st.none() | st.sampled_from(RequestClass),
    st.none() | MS,
    st.none() | MS,
    st.none() | st.floats(1.0, 1e6),
)


@given(TAGS)
def test_a_tag_survives_the_way_to_the_scheduler(tag):
    assert parse_tag({"bros": as_custom_params(tag)}) == tag


@given(TAGS, TAGS, TAGS)
def test_every_field_comes_from_the_first_that_says_it(first, second, third):
    merged = merge(first, second, third)
    for name in ("request_class", "ttft_ms", "tpot_ms", "deadline_s"):
        said = [getattr(tag, name) for tag in (first, second, third)]
        assert getattr(merged, name) == next((value for value in said if value is not None), None)


def test_tiers_name_classes_and_priority_has_targets_of_its_own():
    settings = BrosSettings(tier_priority_ttft_ms=100, tier_priority_tpot_ms=20)
    for tier in ("auto", "default", "scale"):
        assert tag_of_tier(tier, settings) == Tag(RequestClass.RT)
    assert tag_of_tier("priority", settings) == Tag(RequestClass.RT, 100, 20)
    assert tag_of_tier("priority", BrosSettings()) == Tag(RequestClass.RT)
    for tier in ("flex", "batch"):
        assert tag_of_tier(tier, settings) == Tag(RequestClass.BE)
    assert tag_of_tier(None, settings) == Tag()


@pytest.mark.parametrize("tier", ["gold", "", "FLEX", 1, True, ["flex"], {"tier": "flex"}])
def test_an_unknown_tier_is_an_error_that_lists_the_known(tier):
    with pytest.raises(TagError, match=r"service_tier: must be one of .*flex.*got") as caught:
        tag_of_tier(tier, BrosSettings())
    assert caught.value.field == "service_tier"


def test_headers():
    assert tag_of_headers({}) == Tag()
    headers = {"x-bros-class": " RT ", "x-slo-ttft-ms": "250", "x-slo-tpot-ms": "1e1"}
    assert tag_of_headers(headers) == Tag(RequestClass.RT, 250.0, 10.0)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        *itertools.product(("x-slo-ttft-ms", "x-slo-tpot-ms"), ("0", "-1", "nan", "inf", "1e12", "soon", "")),
        ("x-bros-class", "urgent"),
        ("x-bros-class", ""),
    ],
)
def test_rubbish_in_a_header_is_an_error_that_names_it(header, text):
    with pytest.raises(TagError) as caught:
        tag_of_headers({header: text})
    assert caught.value.field == header


def test_the_tier_reported_is_the_one_served():
    for tier in (*REAL_TIME_TIERS, *BEST_EFFORT_TIERS):
        assert tier_served(tier, RequestClass.BE) == (tier if tier in BEST_EFFORT_TIERS else "flex")
        served = tier_served(tier, RequestClass.RT)
        assert served == (tier if tier in ("default", "priority", "scale") else "default")
