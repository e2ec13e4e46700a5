"""Each kind of damage is found and named."""

import pytest
import torch

from bros_sglang.evals.memory.pool_driver import PoolDriver
from bros_sglang.memory.integrity import IntegrityError, check_integrity
from bros_sglang.request_class import RequestClass

RT, BE = RequestClass.RT, RequestClass.BE


class World:
    def __init__(self, page_size):
        self.driver = PoolDriver(4096, page_size=page_size)
        self.rt = self.driver.request("rt", RT, range(500))
        self.be = self.driver.request("be", BE, range(1000, 1500))
        self.gone = self.driver.request("gone", BE, range(2000, 2500))
        self.driver.prefill([self.rt, self.be, self.gone])
        for _ in range(20):
            self.driver.decode([self.rt, self.be, self.gone], [1, 2, 3])
        self.driver.preempt(self.gone)

    def check(self):
        return check_integrity(
            self.driver.allocator, self.driver.tree, [self.rt, self.be, self.rt], [self.gone]
        )


@pytest.fixture(params=[1, 16])
def world(request):
    return World(request.param)


def test_counts_of_a_sound_pool(world):
    use = world.check()
    assert use.total == 4096
    assert use.rt_running == use.be_running > 0
    assert use.held == use.be_cached - world.be.kv.cache_protected_len
    assert use.rt_cached == world.rt.kv.cache_protected_len


def test_a_lost_page(world):
    world.driver.allocator.alloc(world.driver.page_size)
    with pytest.raises(IntegrityError, match="1 lost"):
        world.check()


def test_a_page_freed_twice(world):
    slots = world.driver.slots_of(world.rt)
    last_page = slots[(len(slots) - 1) // world.driver.page_size * world.driver.page_size :]
    world.driver.allocator.free(last_page)
    with pytest.raises(IntegrityError, match=r"in several places.*free.*request rt"):
        world.check()


def test_the_padding_page(world):
    world.driver.allocator.free_pages = torch.cat(
        (torch.zeros(1, dtype=torch.int64), world.driver.allocator.free_pages[1:])
    )
    with pytest.raises(IntegrityError, match="padding"):
        world.check()


def test_a_lock_left_behind(world):
    world.driver.tree.lock(world.rt.last_node)
    world.driver.finish(world.rt)
    with pytest.raises(IntegrityError, match="tokens are locked"):
        world.check()


def test_held_kv_of_nobody(world):
    with pytest.raises(IntegrityError, match=r"neither wait nor run.*gone"):
        check_integrity(world.driver.allocator, world.driver.tree, [world.rt, world.be])


def test_a_waiting_request_that_holds_kv(world):
    with pytest.raises(IntegrityError, match="waiting request be holds"):
        check_integrity(
            world.driver.allocator, world.driver.tree, [world.rt, world.be], [world.gone, world.be]
        )


def test_a_lost_row(world):
    world.driver.rows.free_slots.pop()
    with pytest.raises(IntegrityError, match="lost rows"):
        world.check()


def test_a_forgotten_request(world):
    with pytest.raises(IntegrityError, match="rows"):
        check_integrity(world.driver.allocator, world.driver.tree, [world.rt], [world.gone])


def test_wrong_class_totals(world):
    world.driver.tree._ledger.rt_tokens = 10_000
    with pytest.raises(IntegrityError, match="10000 real-time and -"):
        world.check()


def test_lengths_that_contradict(world):
    world.rt.kv.kv_committed_len = 10_000
    with pytest.raises(IntegrityError, match="request rt: protected"):
        world.check()


def test_inside_a_free_group(world):
    world.driver.allocator.free_group_begin()
    with pytest.raises(IntegrityError, match="free group"):
        world.check()
