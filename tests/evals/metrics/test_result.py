import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.evals.metrics.fairness import jain_index
from bros_sglang.evals.metrics.record import RequestRecord, TokenTimes
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.metrics.rounds import median_result
from bros_sglang.evals.metrics.run import Run, RunFacts, StateSample
from bros_sglang.request_class import RequestClass

RT, BE = RequestClass.RT, RequestClass.BE


def record(rid="a", cls=RT, arrival=0.0, first=0.1, tpot=0.01, tokens=11, prompt=100, **more):
    """Finished by default: first token after `first`, then one each `tpot` seconds."""
    more.setdefault("ttft_ms", 200.0 if cls is RT else None)
    more.setdefault("tpot_ms", 20.0 if cls is RT else None)
    last = arrival + first + tpot * (tokens - 1)
    made = {
        "first_token_s": arrival + first,
        "last_token_s": last,
        "finish_s": last,
        "generated_tokens": tokens,
    }
    return RequestRecord(
        rid, cls, arrival_s=arrival, prompt_tokens=prompt, output_tokens=tokens, **(made | more)
    )


def waiting(rid="w", cls=RT, arrival=0.0, **more):
    return record(
        rid, cls, arrival, first_token_s=None, last_token_s=None, finish_s=None, generated_tokens=0, **more
    )


def result(*records, end=10.0, **facts):
    return compute_result(Run(records, RunFacts("p", end_s=end, **facts)))


def test_the_documented_keys_are_there_and_serialise():
    out = orjson.loads(orjson.dumps(result(record(), record("b", BE))))
    assert list(out)[:7] == ["policy", "rt", "be", "tokens", "preemptions", "passes", "wall_s"]
    assert out["policy"] == "p"
    for key in ("requests", "attainment", "ttft_attainment", "tpot_attainment"):
        assert key in out["rt"]
    for key in ("ttft_ms", "tpot_ms", "normalized_latency_ms"):
        assert {"mean", "p50", "p90", "p99"} <= out["rt"][key].keys()
    assert {"requests_per_s", "tokens_per_s", "longest_wait_s", "jain_fairness"} <= out["be"].keys()
    assert {"arrived", "served", "in_flight", "recomputed", "loaded_back", "prefix_hit"} <= out[
        "tokens"
    ].keys()


def test_latencies():
    rt = result(record(first=0.1, tpot=0.01, tokens=11))["rt"]
    assert rt["ttft_ms"]["p50"] == pytest.approx(100)
    assert rt["tpot_ms"]["p99"] == pytest.approx(10)
    assert rt["normalized_latency_ms"]["mean"] == pytest.approx(200 / 11)
    assert rt["goodput_requests_per_s"] == pytest.approx(0.1)


def test_attainment_is_of_each_target_and_of_both():
    rt = result(
        record("a"), record("b", first=0.3), record("c", tpot=0.03), record("d", first=0.3, tpot=0.03)
    )["rt"]
    assert (rt["ttft_attainment"], rt["tpot_attainment"], rt["attainment"]) == (0.5, 0.5, 0.25)


def test_a_target_that_is_just_met_is_met():
    assert result(record(arrival=0.0, first=0.2, tpot=0.0))["rt"]["attainment"] == 1.0


def test_failed_requests_missed_their_targets():
    rt = result(record("a"), waiting(error="HTTP 500"))["rt"]
    assert (rt["attainment"], rt["failed"], rt["in_flight"]) == (0.5, 1, 0)


def test_overdue_at_the_end_is_a_miss_and_not_yet_due_is_left_out():
    rt = result(record("a"), waiting("late", arrival=1.0), waiting("new", arrival=9.9))["rt"]
    assert (rt["requests"], rt["in_flight"]) == (3, 2)
    assert (rt["attainment"], rt["ttft_attainment"], rt["tpot_attainment"]) == (0.5, 0.5, 1.0)
    assert rt["ttft_ms"]["max"] == pytest.approx(9000)


def test_warm_up_is_left_out():
    rt = result(record("early", first=5.0), record("a", arrival=2.0), start_s=1.0)["rt"]
    assert (rt["requests"], rt["ttft_ms"]["max"]) == (1, pytest.approx(100))


def test_nothing_gives_null_and_not_zero():
    out = result(record("b", BE))
    assert out["rt"]["ttft_ms"] == dict.fromkeys(("mean", "p50", "p90", "p99", "max"))
    assert out["rt"]["attainment"] is None
    assert out["passes"] is out["tokens"]["recomputed"] is out["step_time"]["error_p50"] is None
    assert result()["be"]["longest_wait_s"] is None


def test_be_throughput_counts_what_falls_into_the_measured_part():
    # Prompt of 100 at 1 s; 101 tokens from 1 s to 11 s; the part ends at 6 s: 1 + 50 tokens.
    out = result(record("b", BE, first=1.0, tpot=0.1, tokens=101), end=6.0)["be"]
    assert out["tokens_per_s"] == pytest.approx(151 / 6)
    assert out["output_tokens_per_s"] == pytest.approx(51 / 6)
    assert out["requests_per_s"] == 0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 5), st.floats(0, 3), st.floats(0, 0.5), st.integers(1, 40), st.integers(1, 500)
        ),
        min_size=1,
    ),
    st.floats(0.5, 20),
)
def test_throughput_adds_up_over_adjacent_parts(requests, middle):
    records = [
        record(str(i), BE, arrival, first, tpot, tokens, prompt)
        for i, (arrival, first, tpot, tokens, prompt) in enumerate(requests)
    ]
    end = 100.0
    tokens = [
        result(*records, start_s=start, end=stop)["be"]["tokens_per_s"] * (stop - start)
        for start, stop in ((0.0, middle), (middle, end), (0.0, end))
    ]
    assert tokens[0] + tokens[1] == pytest.approx(tokens[2])
    assert tokens[2] == pytest.approx(sum(r.prompt_tokens + r.generated_tokens for r in records))


def test_longest_wait_includes_those_still_waiting():
    assert result(record("b", BE, first=3.0), waiting("w", BE, arrival=1.0))["be"]["longest_wait_s"] == 9.0


def test_token_books_balance_and_say_when_they_do_not():
    books = result(record(cached_tokens=30), waiting("w", BE), waiting("x", error="gone"))["tokens"]
    assert books["arrived"] == 333 == books["served"] + books["in_flight"] + books["failed"]
    assert (books["prefix_hit"], books["conserved"]) == (30, True)
    short = result(record(generated_tokens=5))["tokens"]
    assert (short["served"], short["conserved"]) == (105, False)


def test_state_samples_and_step_times():
    samples = [
        StateSample(1.0, rt_tokens=100, be_tokens=300, cached_tokens=200, pool_tokens=1000, be_waiting=4),
        StateSample(2.0, rt_tokens=200, be_tokens=700, cached_tokens=100, pool_tokens=1000, be_waiting=8),
        StateSample(99.0, rt_tokens=1000, pool_tokens=1000),
    ]
    out = result(samples=samples, step_times_s=[(0.011, 0.01), (0.01, 0.01), (0.009, 0.01), (1.0, 0.0)])
    assert out["kv_use"] == pytest.approx(
        {"rt_mean": 0.15, "be_mean": 0.5, "cached_mean": 0.15, "held_mean": 0.65, "held_max": 0.9}
    )
    assert out["queue_length"]["be"]["mean"] == 6
    assert out["step_time"]["steps"] == 3
    assert out["step_time"]["error_p50"] == pytest.approx(0.1)


def test_preemptions_and_prefix_hits():
    out = result(record(cached_tokens=25), record("b", BE, preemptions=2), record("c", preemptions=1))
    assert (out["preemptions"], out["rt"]["preemptions"]) == (3, 1)
    assert out["prefix_hit_rate"] == pytest.approx(25 / 300)
    assert out["rt"]["prefix_hit_rate"] == pytest.approx(25 / 200)
    assert out["be"]["prefix_hit_rate"] == 0


@given(st.lists(st.floats(1e-3, 1e3), min_size=1))
def test_jain_lies_between_one_in_n_and_one(shares):
    index = jain_index(shares)
    assert index is not None
    assert 1 / len(shares) - 1e-9 <= index <= 1 + 1e-9


def test_jain_by_hand():
    assert jain_index([1, 1, 1, 1]) == 1
    assert jain_index([4, 0, 0, 0]) == 0.25
    assert jain_index([]) is jain_index([0.0]) is None


def test_tokens_are_judged_by_their_own_deadlines():
    times = TokenTimes(arrival_s=1.0, ttft_ms=100, tpot_ms=10)
    times.add(1.05)  # due 1.10
    times.add(1.105)  # due 1.11
    times.add(1.2, 2)  # due 1.12 and 1.13
    times.add(1.14)  # due 1.14
    assert (times.generated, times.on_time_tokens) == (5, 3)
    assert times.first_s == 1.05
    assert times.max_gap_s == pytest.approx(0.095)
    assert TokenTimes(0.0).on_time_tokens is None


def test_a_target_that_is_not_set_is_met():
    times = TokenTimes(0.0, ttft_ms=100)
    times.add(0.2)
    times.add(9.0)
    assert times.on_time_tokens == 1
    times = TokenTimes(0.0, tpot_ms=100)
    for now in (5.0, 5.05, 5.3):
        times.add(now)
    assert times.on_time_tokens == 2


def test_token_attainment():
    rt = result(record("a", on_time_tokens=10), record("b", on_time_tokens=1))["rt"]
    assert rt["token_attainment"] == 0.5


def test_rounds_give_medians():
    rounds = [result(record(first=first), wall_s=w) for first, w in ((0.1, 5.0), (0.9, 1.0), (0.2, 2.0))]
    merged = median_result(rounds)
    assert merged["rt"]["ttft_ms"]["p50"] == pytest.approx(200)
    assert (merged["wall_s"], merged["rounds"], merged["policy"], merged["passes"]) == (2.0, 3, "p", None)
    assert merged["rt"]["requests"] == 1
    assert isinstance(merged["rt"]["requests"], int)
    assert merged["tokens"]["conserved"] is True
