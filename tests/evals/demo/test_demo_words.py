from bros_sglang.evals.demo import preset
from bros_sglang.evals.demo.picture import write_picture
from bros_sglang.evals.demo.summary import late_client, sentences
from bros_sglang.evals.metrics.record import RequestRecord
from bros_sglang.evals.workloads.build import check_lengths
from bros_sglang.request_class import RequestClass


def result(policy, attainment, be, lag=1.0):
    return {
        "policy": policy,
        "rt": {"attainment": attainment},
        "be": {"tokens_per_s": be, "requests": 5},
        "client": {"lag_ms_p99": lag},
    }


def test_the_words_follow_the_figures():
    results = [result("rt-alone", 1.0, 0.0), result("fcfs", 0.0, 5000.0), result("bros", 0.95, 4800.0)]
    assert sentences(results) == [
        "bros: 95.0 % of chat requests within both targets (0 % with stock fcfs).",
        "Batch throughput: 96 % of stock fcfs.",
    ]
    assert sentences(results[:2]) == []


def test_a_busy_machine_is_said():
    assert late_client([result("fcfs", 0.0, 1.0)]) is None
    assert "100 ms late" in late_client([result("fcfs", 0.0, 1.0), result("bros", 1.0, 1.0, lag=100.0)])


def test_the_load_is_the_main_jobs_and_fits_its_pool():
    plan = preset.demo_plan(30, seed=1)
    assert plan.be.closed_loop == 64
    assert 120 < len(list(plan.rt)) < 300
    assert {(r.ttft_ms, r.tpot_ms) for r in plan.rt} == {(100.0, 20.0)}
    for workload in (plan.rt, plan.be):
        check_lengths(workload, pool_tokens=8192, first=2000)
    assert [policy.name for policy in preset.demo_policies()] == ["rt-alone", "fcfs", "priority", "bros"]


def test_the_picture_is_written_even_for_few_requests(tmp_path):
    records = {
        "bros": [RequestRecord("a", RequestClass.RT, 0.0, 5, 5, 5, 0.1, 0.2, 0.2, ttft_ms=100.0)],
        "fcfs": [],
    }
    path = write_picture(
        tmp_path / "demo.png", [result("bros", 1.0, 10.0), result("fcfs", None, 0.0)], records
    )
    assert path.read_bytes().startswith(b"\x89PNG")
