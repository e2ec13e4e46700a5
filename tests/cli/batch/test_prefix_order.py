"""Reordering: nothing lost, bounded delay, shared beginnings together."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bros_sglang.cli.batch.prefix_order import PrefixOrder, common_prefix
from bros_sglang.cli.batch.problem import Rejected
from bros_sglang.cli.batch.request import BatchRequest


def request(place: int, key: bytes) -> BatchRequest:
    return BatchRequest(place, str(place), str(place), "/v1/completions", b"{}", key, "m")


@given(st.lists(st.binary(max_size=6) | st.none(), max_size=700), st.sampled_from([0, 1, 256, 300, 4096]))
def test_a_permutation_within_windows(keys, window):
    items = [
        Rejected(place, str(place), "x", "x") if key is None else request(place, key)
        for place, key in enumerate(keys)
    ]
    order = PrefixOrder(window)
    windows = list(order.windows(iter(items)))
    sent = [r.place for w in windows for r in w.requests] + [r.place for w in windows for r in w.rejected]
    assert sorted(sent) == list(range(len(items)))
    start = 0
    for made in windows:
        places = [r.place for r in made.requests] + [r.place for r in made.rejected]
        assert sorted(places) == list(range(start, start + len(places)))
        assert len(places) <= max(window, 256)
        start += len(places)
    if window <= 1:
        requests = [r.place for w in windows for r in w.requests]
        assert requests == sorted(requests)


def test_groups_follow_each_other_and_the_statistic_says_so():
    keys = [bytes([65 + n % 7]) * 100 + str(n).encode() for n in range(256)]
    order = PrefixOrder(256)
    (window,) = order.windows(request(n, key) for n, key in enumerate(keys))
    groups = [r.place % 7 for r in window.requests]
    assert sum(a != b for a, b in pairwise(groups)) == 6
    assert order.shared_before < 0.1
    assert order.shared_after > 0.9


def test_the_next_window_begins_where_the_last_ended():
    keys = [b"a", b"b"] * 128 + [b"a", b"b"] * 128
    first, second = PrefixOrder(256).windows(request(n, key) for n, key in enumerate(keys))
    assert first.requests[-1].place % 2 == 1  # ended with b
    assert second.requests[0].place % 2 == 1  # goes on with b


def test_long_prompts_close_a_window_early():
    items = [request(n, b"x" * 1_000_000) for n in range(40)]
    assert len(next(PrefixOrder(4096).windows(items)).requests) < 10


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_common_prefix(shared, left, right):
    left, right = shared + left, shared + right
    length = common_prefix(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]
