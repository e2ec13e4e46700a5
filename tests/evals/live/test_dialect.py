import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.evals.live.dialect import OpenAIDialect, Progress, SGLangDialect, split_events
from bros_sglang.evals.workloads.request import WorkloadRequest, prompt_token_ids
from bros_sglang.request_class import RequestClass, parse_tag

RT = WorkloadRequest("rt-1", RequestClass.RT, 0.0, 20, 7, 7, ttft_ms=100.0, tpot_ms=20.0)
BE = WorkloadRequest("be-1", RequestClass.BE, 0.0, 20, 7, 7)


@pytest.mark.parametrize("request_", [RT, BE])
def test_the_tag_is_one_that_bros_accepts(request_):
    sent = orjson.loads(SGLangDialect().body(request_))["sampling_params"]["custom_params"]
    tag = parse_tag(sent)
    assert (tag.request_class, tag.ttft_ms, tag.tpot_ms) == (
        request_.request_class,
        request_.ttft_ms,
        request_.tpot_ms,
    )
    assert orjson.loads(OpenAIDialect().body(request_))["custom_params"] == sent


def test_bodies_ask_for_the_exact_length_and_carry_the_prompt():
    body = orjson.loads(SGLangDialect().body(RT))
    assert body["input_ids"] == prompt_token_ids(RT, 1000).tolist()
    assert body["sampling_params"]["max_new_tokens"] == 7
    assert body["sampling_params"]["ignore_eos"] is True
    assert "stream_interval" not in body["sampling_params"]
    assert orjson.loads(OpenAIDialect(model="m").body(BE))["max_tokens"] == 7


def test_priorities_differ_by_more_than_sglangs_threshold_and_turn_round_for_vllm():
    rt, be = (orjson.loads(SGLangDialect().body(r))["priority"] for r in (RT, BE))
    assert rt - be > 10
    low_first = OpenAIDialect(low_first=True)
    assert orjson.loads(low_first.body(RT))["priority"] < orjson.loads(low_first.body(BE))["priority"]


@given(st.lists(st.integers(1, 40), max_size=30), st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_however_the_bytes_arrive_the_events_are_the_same(cuts, end):
    events = [b'{"n": 1}', b'{"n": 22}', b"[DONE]"]
    whole = b": comment" + end + b"".join(b"data: " + event + end for event in events)
    buffer, seen, at = bytearray(), [], 0
    for size in [*cuts, len(whole)]:
        buffer += whole[at : at + size]
        at += size
        seen += split_events(buffer)
    assert seen == events


def test_sglang_counts_are_cumulative():
    progress = Progress()
    dialect = SGLangDialect()
    dialect.read(b'{"text": "ab", "meta_info": {"completion_tokens": 2, "finish_reason": null}}', progress)
    assert (progress.tokens, progress.done) == (2, False)
    end = {
        "completion_tokens": 5,
        "cached_tokens": 9,
        "num_retractions": 2,
        "finish_reason": {"type": "length"},
    }
    dialect.read(orjson.dumps({"meta_info": end}), progress)
    dialect.read(b"[DONE]", progress)
    assert progress == Progress(5, 9, 2, done=True)


def test_openai_without_running_usage_counts_chunks_with_text():
    progress = Progress()
    for text in ("a", "", "b"):
        OpenAIDialect().read(orjson.dumps({"choices": [{"text": text}]}), progress)
    assert progress.tokens == 2
    OpenAIDialect().read(b'{"choices": [], "usage": {"completion_tokens": 3}}', progress)
    OpenAIDialect().read(b"[DONE]", progress)
    assert (progress.tokens, progress.done) == (3, True)


@pytest.mark.parametrize("dialect", [SGLangDialect(), OpenAIDialect()])
def test_an_error_in_the_stream_is_kept(dialect):
    progress = Progress()
    dialect.read(b'{"error": {"message": "out of memory"}}', progress)
    assert progress.error == "out of memory"
