"""Eviction order and partial preemption on the real tree, Rust and Python core."""

import pytest
from sglang.srt.mem_cache.base_prefix_cache import CacheRequestOutcome, EvictParams

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


def preempted(driver, rid, prompt, decode=0, request_class=BE):
    """A request that was preempted after its prompt and `decode` tokens; returns it and its tokens."""
    req = driver.request(rid, request_class, prompt)
    driver.prefill([req])
    for step in range(decode):
        driver.decode([req], [50_000 + step])
    driver.preempt(req)
    return req, list(req.origin_input_ids) + list(req.output_ids)


def test_a_preempted_request_keeps_what_it_computed(driver):
    _, whole = preempted(driver, "be", range(1000), decode=100)
    kept = 1100 // driver.page_size * driver.page_size
    assert cached(driver, whole) == kept
    assert driver.tree.held.tokens == kept
    assert driver.allocator.available_size() == 8192 - kept
    assert evict(driver, 10_000) == 0, "eviction alone takes none of it"


def test_a_preempted_request_loses_its_tail_piece_by_piece(driver):
    _, whole = preempted(driver, "be", range(1000), decode=100)
    left = kept = driver.tree.held.tokens
    while left:
        gone = driver.tree.held.give_up(100)
        assert 100 <= gone < 100 + driver.page_size or gone == left
        assert evict(driver, gone) == gone
        left -= gone
        assert cached(driver, whole) == left == driver.tree.held.tokens, (
            "a prefix is left: the loss is the tail"
        )
        assert driver.tree.held.ledger.redo_tokens("be") == 1101 - left
    assert kept == 1100 // driver.page_size * driver.page_size
    assert driver.allocator.available_size() == 8192


def test_a_resumed_request_computes_only_what_is_gone(driver):
    req, whole = preempted(driver, "be", range(2048), decode=48)
    gone = driver.tree.held.give_up(300)
    evict(driver, gone)
    redo = driver.tree.held.ledger.redo_tokens("be")
    assert redo == len(whole) - (2096 // driver.page_size * driver.page_size - gone)
    assert driver.prefill([req]) == [redo]
    assert driver.tree.held.tokens == 0, "it holds its own lock again"
    driver.finish(req)
    assert driver.room() == 8192


def test_real_time_takes_held_room_after_other_best_effort_cache(driver):
    run(driver, "done", BE, range(100_000, 101_024))
    _, whole = preempted(driver, "be", range(4096))
    run(driver, "old-rt", RT, range(200_000, 201_024))
    # 2048 are free, and all of those, the 1024 of the finished BE and 512 of the held ones are needed.
    rt = driver.request("rt", RT, range(300_000, 303_584 - 2 * driver.page_size))
    driver.prefill([rt])
    assert cached(driver, range(100_000, 101_024)) == 0
    assert cached(driver, range(200_000, 201_024)) == 1024
    assert 4096 - 512 - 64 <= cached(driver, whole) <= 4096 - 512 + 3 * driver.page_size


def test_held_kv_is_spared_where_real_time_cache_is_not_worth_keeping(driver):
    for index in range(8):
        run(driver, f"old{index}", RT, range(200_000 + index * 1000, 200_512 + index * 1000))
    _, whole = preempted(driver, "be", range(4000))
    kept = 4000 // driver.page_size * driver.page_size
    driver.tree.rt_cache_kept_tokens = 1024
    driver.prefill([driver.request("rt1", RT, range(300_000, 302_048))])
    assert cached(driver, whole) == kept
    old = driver.tree.evictable_size()
    driver.tree.rt_cache_kept_tokens = None
    driver.prefill([driver.request("rt2", RT, range(400_000, 400_512))])
    assert cached(driver, whole) < kept - 256
    assert driver.tree.evictable_size() >= old


def test_best_effort_admission_sees_no_held_room(driver):
    preempted(driver, "be", range(8000))
    with pytest.raises(OutOfKVError):
        driver.prefill([driver.request("be2", BE, range(10_000, 10_500))])
    driver.prefill([driver.request("rt", RT, range(20_000, 20_500))])


def test_an_aborted_preempted_request_gives_back_all_it_holds(driver):
    req, _ = preempted(driver, "be", range(1024), decode=10)
    driver.tree.finish(req.cache_request_handle, CacheRequestOutcome.ABORT)
    assert driver.tree.held.tokens == 0
    evict(driver, 10_000)
    assert driver.allocator.available_size() == 8192


def test_preempted_again_and_again(driver):
    req = driver.request("be", BE, range(500))
    for times in range(10):
        driver.prefill([req])
        driver.decode([req], [1])
        driver.decode([req], [2])
        driver.preempt(req)
        gone = driver.tree.held.give_up(50 * times)
        assert evict(driver, gone) == gone
    assert len(req.output_ids) == 30
    driver.prefill([req])
    driver.finish(req)
    assert driver.room() == 8192
    assert driver.tree.held.tokens == 0


def test_exclusive_tokens_leave_out_what_others_lock(driver):
    shared = list(range(512))
    first = driver.request("a", BE, shared + [7] * 256)
    driver.prefill([first])
    second = driver.request("b", BE, shared + [8] * 128)
    driver.prefill([second])
    assert driver.tree.exclusive_tokens(first) == 256
    assert driver.tree.exclusive_tokens(second) == 128
    driver.finish(first)
    driver.finish(second)
    assert driver.room() == 8192


def test_stock_release_keeps_nothing_but_the_prompt():
    """The comparison: what the same preemption costs without the tree."""
    driver = PoolDriver(8192, tree="stock")
    req = driver.request("be", BE, range(1024))
    driver.prefill([req])
    for step in range(100):
        driver.decode([req], [50_000 + step])
    assert driver.preempt(req) == 0
    assert cached(driver, range(1024)) == 1024


def test_only_one_preempted_request_is_eaten_at_a_time(driver):
    for index in range(3):
        preempted(driver, f"be{index}", range(index * 10_000, index * 10_000 + 1024))
    for _ in range(5):
        evict(driver, driver.tree.held.give_up(100))
    left = [cached(driver, range(index * 10_000, index * 10_000 + 1024)) for index in range(3)]
    assert left[:2] == [1024, 1024]
    assert left[2] <= 1024 - 500, "who resumes last loses first"
    assert [entry.rid for entry in driver.tree.held.ledger.resume_order()] == ["be0", "be1", "be2"]


def test_held_tails_shared_with_a_running_request_free_nothing_but_are_passed_over(driver):
    _, whole = preempted(driver, "be", range(512))
    twin = driver.request("twin", BE, whole + [9] * 64)
    driver.prefill([twin])
    driver.tree.held.ledger.get("be").yieldable_tokens = 512  # what it was when it was preempted
    assert driver.tree.held.give_up(100) == 0
    assert driver.tree.held.tokens == 0
    driver.finish(twin)
    assert driver.room() == 8192


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
    driver.tree.be_protected_tokens = be.kv.cache_protected_len
    assert driver.tree.be_evictable_tokens() == 256
    driver.preempt(be)
    driver.tree.be_protected_tokens = 0
    assert driver.tree.be_evictable_tokens() == 256
    driver.tree.held.give_up(512)
    assert driver.tree.be_evictable_tokens() == 768


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
