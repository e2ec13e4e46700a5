from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.memory.victims import Candidate, choose_rt_victims, choose_victims


def candidate(index=0, private=0, exclusive=0, generated=0, remaining=100, age_s=0.0, preemptions=0):
    return Candidate(index, private, exclusive, generated, remaining, age_s, preemptions)


candidates = st.lists(
    st.builds(
        candidate,
        private=st.integers(0, 500),
        exclusive=st.integers(0, 500),
        generated=st.integers(0, 100),
        remaining=st.integers(0, 100),
        age_s=st.floats(0, 100),
        preemptions=st.integers(0, 10),
    ),
    max_size=7,
).map(
    lambda found: [
        Candidate(i, *(getattr(c, f) for f in Candidate.__slots__[1:])) for i, c in enumerate(found)
    ]
)


@given(candidates, st.integers(0, 2500), st.integers(0, 3))
def test_enough_is_freed_or_nobody_is_touched(pool, needed_tokens, needed_slots):
    chosen = choose_victims(pool, needed_tokens=needed_tokens, needed_slots=needed_slots)
    assert len(set(chosen)) == len(chosen)
    freed = sum(pool[i].kv_tokens for i in chosen)
    possible = sum(c.kv_tokens for c in pool) >= needed_tokens and len(pool) >= needed_slots
    if needed_tokens == needed_slots == 0 or not possible:
        assert chosen == []
        return
    assert freed >= needed_tokens
    assert len(chosen) >= needed_slots
    for index in chosen:
        spared = freed - pool[index].kv_tokens
        assert spared < needed_tokens or len(chosen) <= max(needed_slots, 1), "nobody is preempted in vain"


def test_the_youngest_of_equals_goes():
    pool = [
        candidate(0, private=100, age_s=9),
        candidate(1, private=100, age_s=1),
        candidate(2, private=100, age_s=5),
    ]
    assert choose_victims(pool, needed_tokens=50) == [1]


def test_one_near_its_end_is_spared():
    pool = [
        candidate(0, private=100, generated=90, remaining=10),
        candidate(1, private=100, generated=10, remaining=90),
    ]
    assert choose_victims(pool, needed_tokens=100) == [1]


def test_shared_tokens_free_nothing():
    shared_only = candidate(0, private=0, exclusive=0, generated=1)
    assert choose_victims([shared_only], needed_tokens=10) == []
    assert choose_victims([shared_only, candidate(1, private=20)], needed_tokens=10) == [1]
    assert choose_victims([shared_only], needed_tokens=0, needed_slots=1) == [0]


def test_one_large_request_rather_than_three_small_ones():
    pool = [candidate(i, private=100) for i in range(3)] + [candidate(3, private=1000)]
    assert choose_victims(pool, needed_tokens=300) == [3]


def test_often_preempted_requests_are_spared_while_others_suffice():
    pool = [candidate(0, private=100, preemptions=8), candidate(1, private=500, age_s=50)]
    assert choose_victims(pool, needed_tokens=90, max_preemptions=8) == [1]
    assert sorted(choose_victims(pool, needed_tokens=550, max_preemptions=8)) == [0, 1]


@given(candidates, st.data())
def test_real_time_gives_way_by_slack(pool, data):
    slack = data.draw(st.lists(st.floats(-5, 5), min_size=len(pool), max_size=len(pool)))
    needed = data.draw(st.integers(1, 2500))
    chosen = choose_rt_victims(pool, slack, needed_tokens=needed)
    if not chosen:
        assert sum(c.kv_tokens for c in pool) < needed
        return
    assert sum(pool[i].kv_tokens for i in chosen) >= needed
    left_out = [i for i in range(len(pool)) if i not in chosen and pool[i].kv_tokens]
    assert all(slack[i] <= min(slack[j] for j in chosen) for i in left_out)
