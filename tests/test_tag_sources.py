"""Headers, service tiers and the order of precedence."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.request_class import RequestClass, Tag, TagError, parse_tag
from bros_sglang.settings import BrosSettings
from bros_sglang.tag_sources import (
    BEST_EFFORT_TIERS,
    REAL_TIME_TIERS,
    Sources,
    as_custom_params,
    merge,
    sources_of,
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
    settings = BrosSettings(tier_priority_ttft_ms=100, tier_priority_tpot_ms=20, tier_auto_ttft_ms=900)
    for tier in ("default", "scale"):
        assert tag_of_tier(tier, settings) == Tag(RequestClass.RT)
    assert tag_of_tier("auto", settings) == Tag(RequestClass.RT, 900)
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


# -- all sources together

KEY = "sk-a-key"
KEY_HASH = hashlib.sha256(KEY.encode()).hexdigest()
PRIORITIES = st.sampled_from([None, -5, -1, 0, 1, 5])
FIELDS = ("request_class", "ttft_ms", "tpot_ms", "deadline_s")


def defaults(tag):
    return {
        "class": tag.request_class,
        "ttft_ms": tag.ttft_ms,
        "tpot_ms": tag.tpot_ms,
        "deadline_s": tag.deadline_s,
    }


def headers_of(tag):
    values = {"x-bros-class": tag.request_class, "x-slo-ttft-ms": tag.ttft_ms, "x-slo-tpot-ms": tag.tpot_ms}
    return {name: str(value) for name, value in values.items() if value is not None}


HEADER_TAGS = st.builds(Tag, st.none() | st.sampled_from(RequestClass), st.none() | MS, st.none() | MS)
TIERS = st.none() | st.sampled_from((*REAL_TIME_TIERS, *BEST_EFFORT_TIERS))


@given(TAGS, HEADER_TAGS, TIERS, PRIORITIES, TAGS, TAGS, st.sampled_from(RequestClass))
def test_the_order_of_precedence(body, header, tier, priority, model, key, default_class):
    settings = BrosSettings(
        keys={KEY_HASH: defaults(key)},
        models={"alias": defaults(model)},
        default_class=default_class,
        tier_priority_ttft_ms=111,
        tier_default_tpot_ms=22,
        tier_auto_ttft_ms=333,
    )
    sources = sources_of({"authorization": f"Bearer {KEY}", **headers_of(header)}, tier, "alias", settings)
    tag = sources.tag(body, priority, settings)
    by_priority = Tag(settings.priority_rule.class_of(priority))
    in_order = (body, header, tag_of_tier(tier, settings), by_priority, model, key)
    for name in FIELDS:
        said = [getattr(source, name) for source in in_order]
        assert getattr(tag, name) == next((value for value in said if value is not None), None)
    served = settings.class_of(tag, priority)  # what the scheduler takes it for
    said = [source.request_class for source in in_order if source.request_class is not None]
    assert served == (said[0] if said else default_class)


@given(TAGS, TAGS, PRIORITIES, TAGS, TAGS, st.sampled_from(RequestClass))
def test_where_keys_decide_nobody_gets_better_than_the_key_gives(
    body, said, priority, model, key, default_class
):
    settings = BrosSettings(keys_decide=True, default_class=default_class)
    free = BrosSettings(default_class=default_class)
    sources = Sources(said, model, key)
    tag = sources.tag(body, priority, settings)
    asked = sources.tag(body, priority, free)
    served, granted = settings.class_of(tag, priority), key.request_class or default_class
    if granted is RequestClass.BE:
        assert served is RequestClass.BE
        return
    # Worse is what one may ask for oneself.
    assert served == free.class_of(asked, priority) or asked.request_class is None
    assert tag.ttft_ms == max(asked.ttft_ms or 0, key.ttft_ms or settings.ttft_ms)
    assert tag.tpot_ms == max(asked.tpot_ms or 0, key.tpot_ms or settings.tpot_ms)


def test_a_key_is_known_by_its_hash_alone():
    settings = BrosSettings(keys={KEY_HASH.upper(): "be"}, models={"tiny-batch": "be"})
    assert sources_of({"authorization": f"bearer {KEY}"}, None, None, settings).key == Tag(RequestClass.BE)
    for header in (
        {},
        {"authorization": KEY},
        {"authorization": "Bearer other"},
        {"authorization": "Bearer"},
    ):
        assert sources_of(header, None, "tiny", settings) == Sources()
    assert sources_of({}, None, "tiny-batch", settings).model == Tag(RequestClass.BE)
    assert sources_of({}, None, ["tiny-batch"], settings) == Sources()
    assert KEY_HASH not in str(settings.shown())
