"""What servers tell of themselves, as each of them writes it."""

import orjson
import pytest

from bros_sglang.evals.live import state as state_module
from bros_sglang.evals.live.dialect import OpenAIDialect, SGLangDialect
from bros_sglang.evals.live.load import LoadGenerator, LoadPlan
from bros_sglang.evals.live.state import read_bros_status, read_sglang_loads, read_vllm_metrics
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass
from bros_sglang.status import BrosStatus, ClassKv, ClassStatus, KvStatus, PreemptionStatus, SchedulerStatus

from .streaming_server import StreamingServer

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 7.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 3.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total{engine="0",model_name="tiny"} 12.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="tiny"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="tiny"} 0.0
"""


def test_bros_tells_the_classes_apart() -> None:
    scheduler = SchedulerStatus(
        rt=ClassStatus(running=2, waiting=1, kv=ClassKv(running_tokens=300, cached_tokens=10)),
        be=ClassStatus(running=5, waiting=40, parked=3, kv=ClassKv(running_tokens=600, cached_tokens=20)),
        kv=KvStatus(pool_tokens=1000, free_tokens=70),
        preemptions=PreemptionStatus(recomputed_tokens_total=77, loaded_back_tokens_total=5),
        passes_total=99,
    )
    status = BrosStatus(bros_version="0", policy="bros", time_s=1.0, schedulers=[scheduler, scheduler])
    read = read_bros_status(status.model_dump_json().encode())
    sample = read.sample
    assert (sample.rt_tokens, sample.be_tokens, sample.cached_tokens) == (600, 1200, 60)
    assert (sample.held_tokens, sample.pool_tokens) == (1800, 2000)
    assert (sample.rt_running, sample.be_running, sample.running) == (4, 16, 20)
    assert (sample.waiting, read.passes, read.recomputed_tokens) == (82, 198, 154)


def test_sglang_and_vllm_tell_sums() -> None:
    loads = [
        {
            "num_used_tokens": 400,
            "max_total_num_tokens": 1000,
            "num_waiting_reqs": 6,
            "num_running_reqs": 9,
        }
    ]
    stock = read_sglang_loads(orjson.dumps({"loads": loads * 2})).sample
    assert (stock.held_tokens, stock.pool_tokens, stock.waiting, stock.running) == (800, 2000, 12, 18)
    vllm = read_vllm_metrics(VLLM.encode())
    assert (vllm.sample.waiting, vllm.sample.running, vllm.preemptions) == (3, 7, 12)
    assert vllm.sample.held_tokens == 0.25 * vllm.sample.pool_tokens
    for sample in (stock, vllm.sample):
        assert (sample.rt_waiting, sample.be_tokens, sample.cached_tokens) == (None, None, None)


@pytest.mark.parametrize("read", [read_bros_status, read_sglang_loads, read_vllm_metrics])
@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b'{"loads": []}', b"<html>", b'{"loads": [1]}'])
def test_what_is_something_else_is_no_state(read, text) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        read(text)


def be_load(seconds: float = 0.6) -> LoadPlan:
    be = parse_workload("uniform:prompt=10-20,output=5-9,outstanding=3", RequestClass.BE, exact_limit=True)
    return LoadPlan(None, be, seconds=seconds)


async def test_a_run_is_sampled_while_it_lasts(monkeypatch) -> None:
    monkeypatch.setattr(state_module, "SAMPLE_S", 0.02)
    async with StreamingServer(owner="vllm", metrics=VLLM) as server:
        counts = iter(range(12, 10_000))
        server.next_metrics = lambda: VLLM.replace(" 12.0", f" {next(counts)}")
        run = await LoadGenerator(server.url, OpenAIDialect(model="m"), be_load(1.5)).run()
    result = compute_result(run)
    assert result["server_state"] == {"from": "/metrics"}
    assert result["queue_length"]["all"] == {"mean": 3.0, "p99": 3.0, "max": 3.0}
    assert result["running"]["all"]["max"] == 7.0
    assert result["kv_use"]["held_mean"] == 0.25
    assert result["kv_use"]["rt_mean"] is result["queue_length"]["rt"]["mean"] is None
    assert result["preemptions"] == len(run.facts.samples) > 0  # one more at each reading


async def test_a_server_that_tells_nothing_is_measured_all_the_same() -> None:
    async with StreamingServer() as server:
        sglang = compute_result(await LoadGenerator(server.url, SGLangDialect(), be_load()).run())
        other = compute_result(await LoadGenerator(server.url, OpenAIDialect(model="m"), be_load()).run())
    assert sglang["server_state"] == {"from": None}
    assert sglang["queue_length"]["all"]["mean"] is None
    assert sglang["preemptions"] > 0  # its answers tell them
    assert other["preemptions"] is None  # nobody told: that is not none
