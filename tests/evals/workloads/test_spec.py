import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bros_sglang.evals.workloads import synthetic
from bros_sglang.evals.workloads.build import check_lengths
from bros_sglang.evals.workloads.errors import WorkloadError
from bros_sglang.evals.workloads.request import WorkloadRequest, prompt_token_ids
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

RT, BE = RequestClass.RT, RequestClass.BE
MOONCAKE = "\n".join(
    f'{{"timestamp": {at}, "input_length": {n}, "output_length": 8, "hash_ids": {ids}}}'
    for at, n, ids in [(0, 1200, [0, 1, 2]), (1000, 900, [0, 3]), (9000, 5000, list(range(10, 20)))]
)


@pytest.fixture(autouse=True)
def no_traces(monkeypatch):
    # What a spec gives must not depend on whether the public traces lie beside the checkout.
    monkeypatch.setattr("bros_sglang.evals.workloads.spec.trace_file", lambda name: None)


def first(workload, n):
    return list(itertools.islice(workload, n))


def test_poisson_rate_horizon_and_order():
    workload = parse_workload("sharegpt:rate=50", RT, seconds=100, seed=3)
    times = [r.arrival_s for r in workload]
    assert times == sorted(times)
    assert 0 <= min(times) <= max(times) < 100
    assert len(times) == pytest.approx(5000, rel=0.05)
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # exponential


def test_same_seed_same_requests_other_seed_others():
    one, two, other = (list(parse_workload("sharegpt:rate=5", RT, seconds=9, seed=s)) for s in (1, 1, 2))
    assert one == two
    assert one != other


def test_the_two_classes_never_share_a_stream():
    rt, be = (first(parse_workload("paper:outstanding=4", c), 20) for c in (RT, BE))
    assert [r.prompt_tokens for r in rt] != [r.prompt_tokens for r in be]
    assert not {r.rid for r in rt} & {r.rid for r in be}


def test_the_papers_best_effort_load():
    workload = parse_workload("paper:outstanding=64", BE)
    assert workload.closed_loop == 64
    requests = first(workload, 500)
    assert {r.arrival_s for r in requests} == {0.0}
    assert all(512 <= r.prompt_tokens <= 1024 and 32 <= r.output_tokens <= 128 for r in requests)
    assert {r.max_new_tokens for r in requests} == {128}
    assert requests == first(workload, 500)


def test_a_closed_loop_can_end():
    assert len(list(parse_workload("paper:outstanding=8,n=20", BE))) == 20


def test_bounds_of_a_uniform_load():
    requests = first(parse_workload("uniform:prompt=128-256,output=32-128,outstanding=64", BE), 2000)
    assert {min(r.prompt_tokens for r in requests), max(r.prompt_tokens for r in requests)} == {128, 256}


def test_exact_limit_sends_the_true_length():
    requests = first(parse_workload("paper:outstanding=1", BE, exact_limit=True), 50)
    assert all(r.max_new_tokens == r.output_tokens for r in requests)


def test_shared_prefix_is_added_and_shared():
    a, b, c = first(parse_workload("paper:prefix=100,prefixes=2", BE), 3)
    ids = [prompt_token_ids(r, 1024) for r in (a, b, c)]
    assert a.prompt_tokens >= 612
    assert (ids[0][:100] == ids[2][:100]).all()
    assert (ids[0][:100] != ids[1][:100]).any()
    assert (ids[0][100:200] != ids[2][100:200]).any()


def test_mooncake_prefixes_speed_slice_and_length_limit(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(MOONCAKE)
    whole = list(parse_workload(str(path), RT))
    assert [r.arrival_s for r in whole] == [0.0, 1.0, 9.0]
    one, two = (prompt_token_ids(r, 1024) for r in whole[:2])
    assert len(one) == 1200
    assert (one[:512] == two[:512]).all()
    assert (one[512:900] != two[512:900]).any()
    assert [r.arrival_s for r in parse_workload(f"{path}:speed=2,start=1", RT)] == [0.0, 4.0]
    assert len(list(parse_workload(f"mooncake:file={path},max_context=2000", RT))) == 2
    assert len(list(parse_workload(str(path), RT, seconds=5))) == 2


@given(scale=st.floats(1, 700))
@settings(max_examples=50, deadline=None)
def test_scaled_blocks_stay_within_the_prompt(tmp_path_factory, scale):
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    path.write_text(MOONCAKE)
    for request in parse_workload(f"{path}:scale={scale}", RT):
        assert sum(tokens for _, tokens in request.prefix) <= request.prompt_tokens
        assert all(tokens > 0 for _, tokens in request.prefix)
        assert len(prompt_token_ids(request, 1024)) == request.prompt_tokens


def test_a_trace_can_be_played_at_another_rate_or_all_at_once(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(MOONCAKE)
    assert len(list(parse_workload(f"{path}:rate=20", RT, seconds=50))) > 900
    corpus = list(parse_workload(f"{path}:arrivals=at-once", BE, seconds=1))
    assert [r.prompt_tokens for r in corpus] == [1200, 900, 5000]


def test_bursts_come_together_at_the_rate():
    times = [r.arrival_s for r in parse_workload("synthetic:arrivals=burst,burst=5,rate=50", RT, seconds=100)]
    assert len(times) == pytest.approx(5000, rel=0.1)
    assert times[0] == times[4] != times[5]


def test_trickle():
    times = [r.arrival_s for r in parse_workload("paper:arrivals=uniform,rate=2", BE, seconds=3)]
    assert times == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


def test_waves_rise_and_fall():
    spec = "synthetic:arrivals=waves,rate=100,low=10,period=20,duty=0.25"
    times = np.array([r.arrival_s for r in parse_workload(spec, RT, seconds=200)])
    high = (times % 20) < 5
    assert high.sum() / 50 == pytest.approx(100, rel=0.05)
    assert (~high).sum() / 150 == pytest.approx(10, rel=0.15)


def test_waves_with_silence_between_them_end():
    times = [
        r.arrival_s for r in parse_workload("synthetic:arrivals=waves,rate=5,period=0.3", RT, seconds=60)
    ]
    assert len(times) == pytest.approx(150, rel=0.3)


def test_the_formula_is_like_sharegpt():
    pairs = np.array(list(itertools.islice(synthetic.sharegpt_like(np.random.default_rng(0)), 20_000)))
    # The table's own figures: prompt mean 2,340, p50 1,730, p90 5,696; output mean 439, p50 415, p90 834.
    assert pairs.mean(0) == pytest.approx([2340, 439], rel=0.12)
    assert np.median(pairs, 0) == pytest.approx([1730, 415], rel=0.12)
    assert np.percentile(pairs, 90, 0) == pytest.approx([5696, 834], rel=0.12)
    assert pairs.sum(1).max() <= 8192


def test_a_request_that_cannot_fit_the_pool_is_named():
    workload = parse_workload("sharegpt:rate=10", RT, seconds=10)
    with pytest.raises(
        WorkloadError, match=r"do not fit the pool of 2000 tokens; the longest is rt-0.*max_context=2000"
    ):
        check_lengths(workload, pool_tokens=2000)
    check_lengths(workload, pool_tokens=9000)
    check_lengths(parse_workload("paper:outstanding=2", BE), pool_tokens=2000, first=1000)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "neither a file nor the name of a workload"),
        ("nothing:rate=1", "neither a file nor the name of a workload"),
        ("sharegpt:rte=3", "unknown option 'rte=3'"),
        ("sharegpt:rate", "unknown option 'rate'"),
        ("sharegpt:rate=-1", "must be positive"),
        ("sharegpt:rate=nan", "must be positive"),
        ("sharegpt:rate=inf", "must be positive"),
        ("sharegpt:rate=x", "is not a number"),
        ("sharegpt", "give rate="),
        ("sharegpt:rate=1,arrivals=sometimes", "arrivals='sometimes' is not one of"),
        ("sharegpt:arrivals=trace", "no arrival times of its own"),
        ("sharegpt:arrivals=waves,rate=1,duty=1", "duty=1 must be below 1"),
        ("paper:prompt=9-3", "must be LOW-HIGH"),
        ("paper:outstanding=1.5", "must be a whole number"),
        ("paper:arrivals=at-once", "needs n="),
        ("azure", "set BROS_TRACES"),
        ("synthetic:rate=1,max_context=1", "max_context=1 leaves nothing"),
    ],
)
def test_bad_specs_say_what_to_change(spec, message):
    with pytest.raises(WorkloadError) as caught:
        first(parse_workload(spec, RT, seconds=2), 1)
    assert message in str(caught.value)


def test_a_rate_needs_an_end():
    with pytest.raises(WorkloadError, match="give seconds"):
        parse_workload("sharegpt:rate=1", RT)


def test_prompt_tokens_are_stable_and_in_the_vocabulary():
    request = WorkloadRequest("rt-1", RT, 0.0, 50, 5, 5, prefix=((7, 20),))
    ids = prompt_token_ids(request, 1024)
    assert ids.shape == (50,)
    assert 16 <= ids.min() <= ids.max() < 1024
    assert ids[:3].tolist() == prompt_token_ids(request, 1024)[:3].tolist()
    with pytest.raises(ValueError, match="prefix of 60 tokens in a prompt of 50"):
        prompt_token_ids(WorkloadRequest("rt-1", RT, 0.0, 50, 5, 5, prefix=((7, 60),)), 1024)
