"""Eviction order and partial preemption on the real tree, Rust and Python core."""

import pytest
from sglang.srt.mem_cache.base_prefix_cache import EvictParams

from bros_sglang.evals.memory.pool_driver import OutOfKVError, PoolDriver
from bros_sglang.request_class import RequestClass

RT, BE = RequestClass.RT, RequestClass.BE


@pytest.fixture(params=["rust", "python"])
def core(request):
    return request.param


@pytest.fixture(params=[1, 16])
def driver(core, request):
    driver = PoolDriver(8192, page_size=request.param, tree_core=core)
    assert type(driver.tree.tree_core).__name__.startswith("Rust") == (core == "rust")
    return driver


def run(driver, rid, request_class, prompt, decode=0, *, priority=None):
    """One request from start to end; its KV is cache afterwards."""
    req = driver.request(rid, request_class, prompt, priority=priority)
    driver.prefill([req])
    for step in range(decode):
        driver.decode([req], [100_000 + step])
    driver.finish(req)


def cached(driver, prompt):
    """How much of a prompt is on the device; asks without touching the tree."""
    from array import array

    from sglang.srt.mem_cache.radix_cache import RadixKey

    return int(driver.tree.tree_core.match_full_device_prefix(RadixKey(array("q", prompt)))[0])


def evict(driver, tokens):
    return driver.tree.evict(EvictParams(num_tokens=tokens)).num_tokens_evicted


def test_best_effort_cache_leaves_first_however_recent(driver):
    old_rt, new_be = range(1000), range(10_000, 11_024)
    run(driver, "rt", RT, old_rt)
    run(driver, "be", BE, new_be)
    before = cached(driver, old_rt)
    evict(driver, 500)
    assert cached(driver, old_rt) == before
    assert cached(driver, new_be) == 0
    evict(driver, 1)
    assert cached(driver, old_rt) == 0


def test_a_prefix_of_both_classes_is_real_time(driver):
    shared = list(range(512))
    run(driver, "be1", BE, shared + list(range(2000, 2256)))
    run(driver, "rt", RT, shared + list(range(3000, 3256)))
    run(driver, "be2", BE, shared + list(range(4000, 4256)))
    assert driver.tree.cached_tokens() == (768, 512)
    evict(driver, 512)
    assert cached(driver, shared + list(range(3000, 3256))) == 768
    assert driver.tree.cached_tokens() == (768, 0)
    evict(driver, 10_000)
    assert driver.tree.cached_tokens() == (0, 0)
    assert driver.allocator.available_size() == 8192


def test_stock_order_inside_a_class_is_least_recent(driver):
    for index in range(4):
        run(driver, f"be{index}", BE, range(index * 1000, index * 1000 + 256))
    evict(driver, 256)
    assert [cached(driver, range(i * 1000, i * 1000 + 256)) for i in range(4)] == [0, 256, 256, 256]


def test_answers_leave_before_prompts(driver):
    prompt = list(range(256))
    run(driver, "a", BE, prompt, decode=64)
    run(driver, "b", BE, range(5000, 5256), decode=64)
    evict(driver, 96)
    assert cached(driver, prompt) == 256
    assert cached(driver, range(5000, 5256)) == 256


def test_request_priority_is_neither_used_nor_changed(driver):
    req = driver.request("be", BE, range(256), priority=1000)
    driver.prefill([req])
    driver.finish(req)
    run(driver, "rt", RT, range(1000, 1256), priority=-1000)
    assert req.priority == 1000
    evict(driver, 256)
    assert cached(driver, range(256)) == 0
    assert cached(driver, range(1000, 1256)) == 256


def test_a_preempted_request_loses_its_tail_piece_by_piece(driver):
    req = driver.request("be", BE, range(1000))
    driver.prefill([req])
    for step in range(100):
        driver.decode([req], [50_000 + step])
    whole = list(req.origin_input_ids) + list(req.output_ids)
    kept = driver.preempt(req)
    assert kept == 1100 // driver.page_size * driver.page_size
    assert driver.allocator.available_size() == 8192 - kept
    left = kept
    while left:
        gone = evict(driver, 40)
        assert 40 <= gone < 40 + 64 or gone == left
        left -= gone
        assert cached(driver, whole) == left, "what is left is a prefix: the loss is the tail"
    assert driver.allocator.available_size() == 8192


def test_a_resumed_request_computes_only_what_is_gone(driver):
    req = driver.request("be", BE, range(2048))
    driver.prefill([req])
    for step in range(48):
        driver.decode([req], [50_000 + step])
    driver.preempt(req)
    gone = evict(driver, 300)
    computed = driver.prefill([req])
    # At least one token is always computed, for its logits.
    total = 2048 + 49
    assert computed == [total - (2096 // driver.page_size * driver.page_size - gone)]
    driver.finish(req)


def test_stock_release_keeps_nothing_but_the_prompt():
    """The comparison: what the same preemption costs without the tree."""
    driver = PoolDriver(8192, tree="stock")
    req = driver.request("be", BE, range(1024))
    driver.prefill([req])
    for step in range(100):
        driver.decode([req], [50_000 + step])
    assert driver.preempt(req) == 0
    assert cached(driver, range(1024)) == 1024


def test_preempted_cache_outlives_finished_answers_and_prompts_of_its_time(driver):
    run(driver, "done", BE, range(9000, 9512))
    req = driver.request("be", BE, range(512))
    driver.prefill([req])
    driver.preempt(req)
    run(driver, "later", BE, range(7000, 7512))
    evict(driver, 1024)
    assert cached(driver, range(512)) == 512


def test_only_one_preempted_request_is_eaten_at_a_time(driver):
    reqs = [driver.request(f"be{i}", BE, range(i * 10_000, i * 10_000 + 1024)) for i in range(3)]
    driver.prefill(reqs)
    for req in reqs:
        driver.preempt(req)
    for _ in range(5):
        evict(driver, 100)
    left = [cached(driver, req.origin_input_ids) for req in reqs]
    assert sum(tokens < 1024 for tokens in left) == 1
    assert left[0] < 1024, "the first to be preempted is the first to lose"


def test_prefixes_that_queued_requests_wait_for_stay_longer(driver):
    wanted = list(range(512))
    run(driver, "warm", BE, wanted)
    waiting = [driver.request(f"q{i}", BE, wanted + [20_000 + i] * 50) for i in range(8)]
    assert driver.tree.refresh_demand(waiting) == 8
    assert driver.tree.refresh_demand(waiting) == 0, "nothing to do until the clock moves"
    for index in range(4):
        run(driver, f"fresh{index}", BE, range(30_000 + index * 1000, 30_512 + index * 1000))
    evict(driver, 4 * 512)
    assert cached(driver, wanted) == 512
    assert driver.tree.cached_tokens() == (0, 512)


def test_demand_that_has_passed_is_overtaken(driver):
    wanted = list(range(512))
    run(driver, "warm", BE, wanted)
    driver.tree.refresh_demand([driver.request(f"q{i}", BE, wanted) for i in range(8)])
    driver.tree.refresh_demand([])
    for index in range(40):  # 2.5 pools of churn
        run(driver, f"churn{index}", BE, range(100_000 + index * 1000, 100_512 + index * 1000))
        evict(driver, 512)
    assert cached(driver, wanted) == 0


def test_demand_never_invents_cache(driver):
    assert driver.tree.refresh_demand([driver.request("q", BE, range(512))]) == 0
    assert driver.allocator.available_size() == 8192
    run(driver, "short", BE, range(256))
    driver.tree.refresh_demand([driver.request("q2", BE, range(1024))])
    assert driver.tree.cached_tokens() == (0, 256)


def test_evictable_best_effort_is_a_lower_bound(driver):
    rt = driver.request("rt", RT, range(512))
    be = driver.request("be", BE, range(10_000, 10_512))
    driver.prefill([rt, be])
    run(driver, "rt-done", RT, range(20_000, 20_256))
    run(driver, "be-done", BE, range(30_000, 30_256))
    assert driver.tree.cached_tokens() == (768, 768)
    assert driver.tree.be_evictable_tokens(be.kv.cache_protected_len) == 256
    driver.preempt(be)
    assert driver.tree.be_evictable_tokens(0) == 768


def test_reset_forgets_the_classes(driver):
    run(driver, "rt", RT, range(512))
    driver.tree.reset()
    driver.allocator.clear()
    assert driver.tree.cached_tokens() == (0, 0)
    run(driver, "rt2", RT, range(512))
    assert driver.tree.cached_tokens() == (512, 0)


def test_no_room_is_an_error_that_loses_nothing(driver):
    held = driver.request("rt", RT, range(8000))
    driver.prefill([held])
    with pytest.raises(OutOfKVError):
        driver.prefill([driver.request("be", BE, range(10_000, 11_000))])
    driver.finish(held)
    assert driver.room() == 8192
