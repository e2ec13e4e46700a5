from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bros_sglang.policies.waiting import BestEffortQueue, RealTimeQueue


class Item:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def _names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


def test_real_time_goes_by_due_time_and_the_late_give_way() -> None:
    queue: RealTimeQueue[Item] = RealTimeQueue()
    for name, due in (("late", 1.0), ("soon", 6.0), ("later", 9.0)):
        queue.add(Item(name), due, patience_s=10.0)
    assert _names(queue.head(10, now_s=5.0)) == ["soon", "later", "late"]


def test_a_late_request_does_not_wait_for_ever() -> None:
    queue: RealTimeQueue[Item] = RealTimeQueue()
    queue.add(Item("late"), 1.0, patience_s=3.0)
    queue.add(Item("soon"), 6.0, patience_s=3.0)
    assert _names(queue.head(10, now_s=5.0)) == ["late", "soon"]


def test_preempted_requests_resume_first_with_the_least_to_redo() -> None:
    queue: BestEffortQueue[Item] = BestEffortQueue()
    queue.add(Item("new"), "n")
    queue.add_resumed(Item("much"), 500)
    queue.add_resumed(Item("little"), 5)
    assert _names(queue.head(10, 0.0)) == ["little", "much", "new"]


def test_a_completion_window_moves_a_request_up_when_it_nears() -> None:
    queue: BestEffortQueue[Item] = BestEffortQueue()
    for i in range(5):
        queue.add(Item(str(i)), i)
    queue.add(Item("window"), "w", urgent_at_s=50.0)
    assert "window" not in _names(queue.head(3, 49.0))
    assert _names(queue.head(3, 50.0))[0] == "window"


def test_a_shared_prefix_is_computed_once_and_then_used_together() -> None:
    queue: BestEffortQueue[Item] = BestEffortQueue()
    shared = [Item(f"s{i}") for i in range(4)]
    for item in shared:
        queue.add(item, "shared")
    other = Item("other")
    queue.add(other, "other")
    assert _names(queue.head(8, 0.0)) == ["s0", "other"]
    queue.admitted(shared[0])
    assert _names(queue.head(8, 0.0)) == ["other"]
    queue.prefilled(shared[0], "shared")
    assert _names(queue.head(8, 0.0)) == ["s1", "s2", "s3", "other"]


def test_one_endless_prefix_starves_no_other() -> None:
    queue: BestEffortQueue[Item] = BestEffortQueue(turn=4)
    many = [Item(f"m{i}") for i in range(100)]
    for item in many:
        queue.add(item, "many")
    queue.add(Item("other"), "other")
    queue.admitted(many[0])
    queue.prefilled(many[0], "many")
    taken = []
    for _ in range(12):
        first = queue.head(1, 0.0)[0]
        taken.append(first.name)
        queue.admitted(first)
    assert "other" in taken


def test_a_leader_that_vanished_does_not_hold_its_group_for_ever() -> None:
    queue: BestEffortQueue[Item] = BestEffortQueue()
    items = [Item("a"), Item("b")]
    for item in items:
        queue.add(item, "g")
    queue.admitted(items[0])  # aborted in mid-prefill: nobody says so
    assert any(queue.head(4, 0.0) for _ in range(1000))


class Queues(RuleBasedStateMachine):
    """Whatever happens, what went in and did not come out is still there, once."""

    def __init__(self) -> None:
        super().__init__()
        self.rt: RealTimeQueue[Item] = RealTimeQueue()
        self.be: BestEffortQueue[Item] = BestEffortQueue(turn=3)
        self.in_rt: list[Item] = []
        self.in_be: list[Item] = []

    @rule(due=st.floats(0, 10), patience=st.floats(0, 5))
    def add_rt(self, due: float, patience: float) -> None:
        self.in_rt.append(Item("rt"))
        self.rt.add(self.in_rt[-1], due, patience)

    @rule(group=st.integers(0, 3), urgent=st.none() | st.floats(0, 10))
    def add_be(self, group: int, urgent: float | None) -> None:
        self.in_be.append(Item("be"))
        self.be.add(self.in_be[-1], group, urgent)

    @rule(redo=st.integers(0, 100))
    def add_resumed(self, redo: int) -> None:
        self.in_be.append(Item("resumed"))
        self.be.add_resumed(self.in_be[-1], redo)

    @rule(data=st.data(), admitted=st.booleans())
    def take(self, data: st.DataObject, admitted: bool) -> None:
        for items, queue in ((self.in_rt, self.rt), (self.in_be, self.be)):
            if items:
                item = items.pop(data.draw(st.integers(0, len(items) - 1)))
                if admitted and queue is self.be:
                    self.be.admitted(item)
                else:
                    assert queue.discard(item)
                assert not queue.discard(item)

    @invariant()
    def nothing_lost(self) -> None:
        assert len(self.rt) == len(self.in_rt)
        assert len(self.be) == len(self.in_be)
        assert {id(item) for item in self.rt} == {id(item) for item in self.in_rt}
        assert {id(item) for item in self.be} == {id(item) for item in self.in_be}

    @invariant()
    def heads_are_members_once(self) -> None:
        pairs: list[tuple[Any, list[Item]]] = [(self.rt, self.in_rt), (self.be, self.in_be)]
        for queue, items in pairs:
            head = queue.head(5, 5.0)
            assert len({id(item) for item in head}) == len(head)
            assert {id(item) for item in head} <= {id(item) for item in items}
        if self.in_rt:
            assert self.rt.head(5, 5.0)


Queues.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueues = Queues.TestCase
