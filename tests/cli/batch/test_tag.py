"""The tag in a body."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.cli.batch.tag import tagged_body
from bros_sglang.request_class import RequestClass, parse_tag

PAYLOAD = b'{"model":"m","prompt":"x"}'


@given(st.none() | st.integers(-10, 10**9))
def test_the_server_reads_what_is_written(deadline_s):
    body = orjson.loads(tagged_body(PAYLOAD, None, tag=True, deadline_s=deadline_s))
    tag = parse_tag(body["custom_params"])
    assert tag.request_class is RequestClass.BE
    assert (tag.deadline_s is None) == (deadline_s is None)
    assert body["prompt"] == "x"


def test_own_parameters_stay():
    own = {"other": 1, "bros": {"class": "rt", "ttft_ms": 5}}
    body = orjson.loads(tagged_body(PAYLOAD, own, tag=True, deadline_s=60))
    assert body["custom_params"] == {"other": 1, "bros": {"class": "be", "ttft_ms": 5, "deadline_s": 60}}
    assert orjson.loads(tagged_body(PAYLOAD, own, tag=False, deadline_s=None))["custom_params"] == own


def test_no_tag_changes_nothing():
    assert tagged_body(PAYLOAD, None, tag=False, deadline_s=5) == PAYLOAD
