"""What is counted of requests and steps."""

from types import SimpleNamespace

import pytest

from bros_sglang.policies.decision import Decision
from bros_sglang.policies.slack import Slo
from bros_sglang.policies.step_time import Coefficients, StepShape
from bros_sglang.request_class import RequestClass
from bros_sglang.scheduler.books import Books
from bros_sglang.scheduler.state import ReqState
from bros_sglang.scheduler.status import last_minute


class Ended:
    def __init__(self, kind):
        self.kind = kind

    def to_json(self):
        return {"type": self.kind}


def request(request_class=RequestClass.RT, *, arrival_s=0.0, prompt=10, rid="r"):
    # Scheduling aims at 95 % of the targets, 100 ms and 20 ms.
    slo = Slo(0.095, 0.019)
    return SimpleNamespace(
        rid=rid,
        bros=ReqState(request_class, slo, arrival_s, arrival_s + slo.ttft_s, rid),
        origin_input_ids=[0] * prompt,
        output_ids=[],
        cached_tokens=4,
        finished_reason=None,
        time_stats=SimpleNamespace(forward_entry_time=arrival_s + 0.01),
        kv=SimpleNamespace(kv_committed_len=0),
    )


def run(books, req, times_s, end="stop"):
    books.arrived(req, req.bros.arrival_s)
    for index, at_s in enumerate(times_s):
        req.output_ids.append(7)
        if index == len(times_s) - 1:
            req.finished_reason = Ended(end)
        books.after_step([req], at_s)


@pytest.mark.parametrize(
    ("times_s", "ttft_met", "tpot_met"),
    [
        ([0.099, 0.118], 1, 1),  # within the targets, though not within what scheduling aims at
        ([0.101, 0.12], 0, 1),
        ([0.05, 0.0701], 1, 0),
        ([0.05], 1, 0),  # one token has no pace
    ],
)
def test_attainment_is_of_the_targets_promised(times_s, ttft_met, tpot_met):
    books = Books(0.95)
    run(books, request(), times_s)
    totals = books.rt.totals
    assert (totals.ttft_told, totals.ttft_met) == (1, ttft_met)
    assert (totals.tpot_told, totals.tpot_met) == (len(times_s) > 1, tpot_met)
    assert totals.met == (ttft_met and (tpot_met or len(times_s) == 1))
    assert (totals.prompt_tokens, totals.cached_tokens, totals.output_tokens) == (10, 4, len(times_s))


def test_a_step_after_the_end_counts_nothing():
    books = Books(0.95)
    req = request()
    run(books, req, [0.05, 0.06])
    books.after_step([req], 0.07)
    assert books.rt.totals.finished == 1
    assert books.rt.totals.output_tokens == 2


def test_aborts_are_failures_once():
    books = Books(0.95)
    run(books, request(), [0.05, 0.06], end="abort")
    waiting = request(RequestClass.BE)
    books.arrived(waiting, 0.0)
    books.aborted_waiting(waiting, 0.1)
    books.aborted_waiting(waiting, 0.2)
    books.aborted_waiting(SimpleNamespace(), 0.3)
    assert (books.rt.totals.failed, books.rt.totals.finished) == (1, 0)
    assert (books.be.totals.failed, books.be.totals.arrived) == (1, 1)


def test_health_checks_are_nobodys_requests():
    books = Books(0.95)
    run(books, request(rid="HEALTH_CHECK_1"), [500.0])
    totals = books.rt.totals
    assert (totals.arrived, totals.finished, totals.failed, totals.ttft_told) == (0, 0, 0, 0)


def test_what_preemption_keeps_and_loses():
    books = Books(0.95)
    req = request(RequestClass.BE)
    req.kv.kv_committed_len = 100
    books.preempted(req, mid_prefill=False)
    decision = Decision(1, 0.0, 0.0, 0, 0, 0, 0, None, 1.0, "", 0)
    batch = SimpleNamespace(reqs=[req], prefix_lens=[64], extend_lens=[20], decoding_reqs=None)
    cost = Coefficients(0.0, 1e-3, 0.0, 0.0, 0.0, 0.0)
    for _ in range(2):  # the second chunk counts nothing again
        books.launched(decision, batch, StepShape(prefill_tokens=20), cost)
    totals = books.passes
    assert (totals.preempted, totals.restored_tokens, totals.recomputed_tokens) == (1, 64, 36)


def test_lent_is_the_best_effort_part_of_a_step_beside_real_time():
    books = Books(0.95)
    rows = [request(), request(RequestClass.BE), request(RequestClass.BE)]
    batch = SimpleNamespace(reqs=rows, prefix_lens=[], extend_lens=[], decoding_reqs=None)
    decision = Decision(1, 0.0, 0.0, 0, 0, 1, 2, None, 1.0, "", 0, predicted_s=0.004)
    books.launched(decision, batch, StepShape(decode_rows=3), Coefficients(0.001, 0, 0, 0.001, 0, 0))
    assert decision.lent_s == pytest.approx(0.002)
    books.step_measured(decision, 0.008, 1.0)  # it took twice as long as predicted: so did the loan
    assert books.passes.lent_s == pytest.approx(0.004)
    assert books.step_error.values(1.0) == [pytest.approx(-0.5)]

    decision.rt_rows, decision.lent_s = 0, 0.0
    books.launched(decision, batch, StepShape(decode_rows=3), Coefficients(0.001, 0, 0, 0.001, 0, 0))
    assert decision.lent_s == 0.0


def test_the_last_minute_of_a_class():
    books = Books(0.95)
    run(books, request(arrival_s=0.0), [0.2, 0.21])
    for start_s in (100.0, 110.0):
        run(books, request(arrival_s=start_s), [start_s + 0.05, start_s + 0.06])
    run(books, request(RequestClass.BE, arrival_s=110.0), [119.0])
    minute = last_minute(books.rt, 120.0, 60.0)
    assert (minute.arrived, minute.finished) == (2, 2)
    assert minute.attainment == minute.ttft_attainment == 1.0
    assert minute.output_tokens_per_s == pytest.approx(4 / 60)
    assert minute.ttft_p99_s == pytest.approx(0.05)
    be = last_minute(books.be, 120.0, 60.0)
    assert be.finished == 1
    assert be.attainment is None
