import asyncio

import pytest

from bros_sglang.evals.live import load
from bros_sglang.evals.live.dialect import OpenAIDialect, SGLangDialect
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.load import LoadGenerator, LoadPlan
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

from .streaming_server import StreamingServer

RT, BE = RequestClass.RT, RequestClass.BE


def rt_load(seconds=0.6, rate=40):
    spec = f"uniform:prompt=10-20,output=3-6,rate={rate}"
    return parse_workload(spec, RT, seconds=seconds, ttft_ms=60_000, tpot_ms=60_000, exact_limit=True)


def be_load(outstanding=5):
    return parse_workload(
        f"uniform:prompt=10-20,output=20-30,outstanding={outstanding}", BE, exact_limit=True
    )


async def drive(server, plan, dialect=None, **kwargs):
    return await LoadGenerator(server.url, dialect or SGLangDialect(), plan).run(**kwargs)


@pytest.mark.parametrize("dialect", [SGLangDialect(), OpenAIDialect(model="m")])
async def test_both_classes_are_measured(dialect):
    async with StreamingServer() as server:
        run = await drive(server, LoadPlan(rt_load(), be_load(), seconds=0.6), dialect)
    result = compute_result(run)
    assert result["rt"]["requests"] == result["rt"]["finished"] == len(list(rt_load())) > 5
    assert result["rt"]["attainment"] == 1.0
    assert result["be"]["tokens_per_s"] > 0
    assert result["be"]["in_flight"] in (4, 5)  # one may end while the run is being ended
    assert result["tokens"]["conserved"] is True
    assert {r.generated_tokens == r.output_tokens for r in run.records if r.finished} == {True}
    rt = next(r for r in run.records if r.request_class is RT)
    assert rt.arrival_s <= rt.first_token_s <= rt.last_token_s <= rt.finish_s
    assert rt.on_time_tokens == rt.generated_tokens
    assert rt.max_gap_s > 0


async def test_a_closed_loop_keeps_exactly_its_number_outstanding():
    async with StreamingServer() as server:
        run = await drive(server, LoadPlan(None, be_load(7), seconds=0.5))
        assert server.peak == 7
    assert 5 <= sum(r.in_flight for r in run.records) <= 7
    assert len({r.rid for r in run.records}) == len(run.records)


async def test_what_the_server_tells_is_recorded():
    async with StreamingServer() as server:
        run = await drive(server, LoadPlan(rt_load(), None, seconds=0.6))
    assert {(r.cached_tokens, r.preemptions) for r in run.records} == {(3, 1)}


async def test_warm_up_is_left_out_of_the_figures():
    async with StreamingServer() as server:
        run = await drive(server, LoadPlan(rt_load(0.8), None, seconds=0.4, warmup_s=0.4))
    result = compute_result(run)
    assert 0 < result["rt"]["requests"] < len(run.records)
    assert result["seconds"] == pytest.approx(0.4)


async def test_rt_in_flight_at_the_end_gets_its_verdict_and_be_stays_on_for_it():
    slow = parse_workload("uniform:prompt=10,output=40,rate=20", RT, seconds=0.3, ttft_ms=9, exact_limit=True)
    async with StreamingServer(gap_s=0.01) as server:
        run = await drive(server, LoadPlan(slow, be_load(), seconds=0.3))
    assert all(r.finished for r in run.records if r.request_class is RT)
    assert max(r.finish_s for r in run.records if r.finished) > 0.4


async def test_grace_is_bounded_and_what_hangs_is_in_flight():
    hanging = parse_workload("uniform:prompt=10,output=500,rate=20", RT, seconds=0.2, exact_limit=True)
    async with StreamingServer(gap_s=0.05) as server:
        run = await drive(server, LoadPlan(hanging, None, seconds=0.2, grace_s=0.2))
    assert run.records
    assert all(r.in_flight and r.generated_tokens > 0 for r in run.records)
    assert compute_result(run)["tokens"]["conserved"] is True


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (StreamingServer(cut_after=2), "the stream ended before the answer did"),
        (StreamingServer(abort=True), "aborted by the server: no room"),
        (StreamingServer(status=400), "HTTP 400"),
    ],
)
async def test_failures_are_recorded_with_their_reason(server, message):
    async with server:
        run = await drive(server, LoadPlan(rt_load(0.3), None, seconds=0.3))
    assert run.records
    assert all(message in r.error for r in run.records)
    assert compute_result(run)["rt"]["attainment"] == 0.0


async def test_a_server_that_always_fails_ends_the_run(monkeypatch):
    monkeypatch.setattr(load, "FAILURE_PAUSE_S", 0.01)
    async with StreamingServer(status=503) as server:
        with pytest.raises(LiveError, match=r"32 requests in a row failed, the last with: HTTP 503.*broken"):
            await asyncio.wait_for(drive(server, LoadPlan(None, be_load(), seconds=60)), 20)


async def test_a_server_that_goes_away_ends_the_run(monkeypatch):
    monkeypatch.setattr(load, "FAILURE_PAUSE_S", 0.01)
    async with StreamingServer() as server:
        task = asyncio.create_task(drive(server, LoadPlan(None, be_load(), seconds=60)))
        await asyncio.sleep(0.3)
    with pytest.raises(LiveError, match="requests in a row failed"):
        await asyncio.wait_for(task, 20)


async def test_progress_is_told():
    seen = []
    async with StreamingServer() as server:
        plan = LoadPlan(rt_load(), be_load(), seconds=0.6)
        await drive(
            server, plan, on_tick=lambda state: seen.append((state.rt_done, state.be_done)), tick_s=0.1
        )
    assert len(seen) >= 2  # a busy machine ticks late; the last one is told at the end in any case
    assert seen[-1][0] == len(list(rt_load()))
    assert seen[-1][1] > 0
