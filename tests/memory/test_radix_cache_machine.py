"""Random lives of requests on both tree cores: books balance, and the class totals are the nodes' own."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sglang.srt.mem_cache.base_prefix_cache import CacheRequestOutcome, EvictParams

from bros_sglang.evals.memory.pool_driver import OutOfKVError, PoolDriver
from bros_sglang.memory.eviction import RT_BAND
from bros_sglang.memory.integrity import check_integrity
from bros_sglang.request_class import RequestClass


def tokens_of_nodes(tree):
    """The truth, from the Python core's nodes: (real-time tokens, best-effort tokens without a lock)."""
    rt, be_unlocked, stack = 0, 0, [*tree.tree_core.root_node.children.values()]
    while stack:
        node = stack.pop()
        stack.extend(node.children.values())
        full = node.component_data[0]
        if full.value is not None and node.priority >= RT_BAND:
            rt += len(full.value)
        elif full.value is not None and full.lock_ref == 0:
            be_unlocked += len(full.value)
    return rt, be_unlocked


class TreeMachine(RuleBasedStateMachine):
    page_size = 1

    @initialize()
    def start(self):
        self.drivers = [
            PoolDriver(
                600 * self.page_size,
                page_size=self.page_size,
                tree_core=name,
                max_context=max(2048, 128 * self.page_size),
            )
            for name in ("python", "rust")
        ]
        self.running: list[list] = []  # one request per core
        self.preempted: list[list] = []
        self.count = 0

    # Few distinct tokens and repeats of a page, so that prefixes are shared and split everywhere.
    prompts = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12)), min_size=1, max_size=8).map(
        lambda runs: [token for token, times in runs for _ in range(times)]
    )

    def each(self, action):
        """Do the same on both cores; both must end alike."""
        outcomes = []
        for index, driver in enumerate(self.drivers):
            try:
                outcomes.append(action(driver, index))
            except OutOfKVError:
                outcomes.append("full")
        assert outcomes[0] == outcomes[1]
        return outcomes[0]

    @rule(prompt=prompts, is_rt=st.booleans(), chunk=st.none() | st.integers(1, 3))
    def arrive(self, prompt, is_rt, chunk):
        prompt = [token for token in prompt for _ in range(self.page_size)]
        self.count += 1
        request_class = RequestClass.RT if is_rt else RequestClass.BE
        pair = [driver.request(f"r{self.count}", request_class, prompt) for driver in self.drivers]
        self.admit(pair, None if chunk is None else chunk * self.page_size)

    def admit(self, pair, chunk=None):
        outcome = self.each(lambda driver, i: driver.prefill([pair[i]], chunk))
        if outcome != "full":
            self.running.append(pair)
        return outcome

    def ready(self):
        return [pair for pair in self.running if pair[0].extend_end == len(pair[0].full_untruncated_fill_ids)]

    @precondition(lambda self: self.running)
    @rule()
    def next_chunk(self):
        for pair in self.running:
            if pair[0].extend_end < len(pair[0].full_untruncated_fill_ids):
                self.each(lambda driver, i, pair=pair: driver.prefill([pair[i]]))

    @precondition(lambda self: self.running)
    @rule(steps=st.integers(1, 20), token=st.integers(0, 2))
    def decode(self, steps, token):
        pairs = self.ready()
        if not pairs:
            return
        for _ in range(steps):
            self.each(lambda driver, i: driver.decode([pair[i] for pair in pairs], [token] * len(pairs)))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99))
    def finish(self, which):
        pair = self.running.pop(which % len(self.running))
        self.each(lambda driver, i: driver.finish(pair[i]))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99))
    def abort(self, which):
        pair = self.running.pop(which % len(self.running))
        self.each(lambda driver, i: driver.abort(pair[i]))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 99), keep=st.booleans())
    def preempt(self, which, keep):
        pair = self.running.pop(which % len(self.running))
        self.each(lambda driver, i: driver.preempt(pair[i], keep=keep))
        self.preempted.append(pair)

    @precondition(lambda self: self.preempted)
    @rule(which=st.integers(0, 99))
    def resume(self, which):
        pair = self.preempted.pop(which % len(self.preempted))
        if self.admit(pair) == "full":
            self.preempted.append(pair)

    @rule(tokens=st.integers(1, 200))
    def evict(self, tokens):
        self.each(lambda driver, _: driver.tree.evict(EvictParams(num_tokens=tokens)).num_tokens_evicted)

    @precondition(lambda self: self.preempted)
    @rule()
    def demand(self):
        self.each(lambda driver, i: driver.tree.refresh_demand([pair[i] for pair in self.preempted]))

    @rule(tokens=st.integers(1, 200))
    def give_up(self, tokens):
        def action(driver, _):
            held = driver.tree.held.tokens
            freed = driver.tree.held.give_up(tokens)
            assert freed >= min(tokens, held) or driver.tree.held.tokens == 0
            return freed

        self.each(action)

    @precondition(lambda self: self.preempted)
    @rule(which=st.integers(0, 99))
    def abort_preempted(self, which):
        pair = self.preempted.pop(which % len(self.preempted))
        self.each(
            lambda driver, i: driver.tree.finish(pair[i].cache_request_handle, CacheRequestOutcome.ABORT)
        )

    @precondition(lambda self: not self.running and not self.preempted)
    @rule()
    def flush(self):
        for driver in self.drivers:
            driver.tree.reset()
            driver.allocator.clear()

    @invariant()
    def books_balance(self):
        if not hasattr(self, "drivers"):
            return
        for index, driver in enumerate(self.drivers):
            use = check_integrity(
                driver.allocator,
                driver.tree,
                [pair[index] for pair in self.running],
                [pair[index] for pair in self.preempted],
            )
            assert use.total == 600 * self.page_size

    @invariant()
    def held_kv_is_there(self):
        if not hasattr(self, "drivers"):
            return
        for index, driver in enumerate(self.drivers):
            held = driver.tree.held
            assert len(held.ledger) <= len(self.preempted)
            for pair in self.preempted:
                entry = held.ledger.get(pair[index].rid)
                if entry is not None:
                    key = driver.tree.request_key(pair[index])
                    assert driver.tree.tree_core.match_full_device_prefix(key)[0] >= entry.kept_tokens
            assert held.protected_tokens >= held.tokens
            if not self.running and not self.preempted:
                assert driver.tree.protected_size() == 0

    @invariant()
    def class_totals_are_right(self):
        if not hasattr(self, "drivers"):
            return
        python, rust = self.drivers
        assert python.tree.cached_tokens() == rust.tree.cached_tokens()
        rt_tokens, be_unlocked = tokens_of_nodes(python.tree)
        assert python.tree.cached_tokens().rt == rt_tokens
        be_locked = sum(
            pair[0].kv.cache_protected_len
            for pair in self.running
            if pair[0].bros.request_class is RequestClass.BE
        )
        python.tree.be_protected_tokens = be_locked
        assert python.tree.be_evictable_tokens() <= be_unlocked


class Page1(TreeMachine):
    page_size = 1


class Page4(TreeMachine):
    page_size = 4


class Page16(TreeMachine):
    page_size = 16


class Page64(TreeMachine):
    page_size = 64


TestTreePage1 = Page1.TestCase
TestTreePage4 = Page4.TestCase
TestTreePage16 = Page16.TestCase
TestTreePage64 = Page64.TestCase
TestTreePage1.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTreePage4.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
for case in (TestTreePage16, TestTreePage64):
    case.settings = settings(
        max_examples=5, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
    )
del case
