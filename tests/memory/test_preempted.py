import pytest

from bros_sglang.memory.preempted import PreemptedLedger
from bros_sglang.request_class import RequestClass

RT, BE = RequestClass.RT, RequestClass.BE


def enter(ledger, rid, total, kept, request_class=BE):
    return ledger.add(rid, request_class, total_tokens=total, kept_tokens=kept, yieldable_tokens=kept)


def test_least_to_redo_resumes_first_and_yields_last():
    ledger = PreemptedLedger()
    enter(ledger, "much", 1000, 100)
    enter(ledger, "none", 1000, 1000)
    enter(ledger, "some", 1000, 800)
    enter(ledger, "chat", 500, 0, RT)
    assert [e.rid for e in ledger.resume_order()] == ["chat", "none", "some", "much"]
    assert [e.rid for e in ledger.yield_order()] == ["much", "some", "none", "chat"]
    assert ledger.held_tokens == 1900
    assert ledger.redo_tokens("some") == 200
    assert ledger.redo_tokens("unknown") == 0


def test_yielding_moves_a_request_back():
    ledger = PreemptedLedger()
    enter(ledger, "a", 1000, 1000)
    enter(ledger, "b", 1000, 900)
    ledger.shrunk("a", 600, 400)
    assert [e.rid for e in ledger.resume_order()] == ["b", "a"]
    assert ledger.held_tokens == 1500
    ledger.shrunk("a", 0, 500)
    assert ledger.held_tokens == 900, "nothing kept is nothing to yield, whatever it was thought to free"


def test_entering_twice_is_an_error_and_leaving_is_not():
    ledger = PreemptedLedger()
    entry = enter(ledger, "a", 10, 5)
    with pytest.raises(ValueError, match="a is preempted already"):
        enter(ledger, "a", 10, 5)
    assert ledger.remove("a") is entry
    assert ledger.remove("a") is None
    assert len(ledger) == 0
    assert "a" not in ledger
