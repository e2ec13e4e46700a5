import asyncio
import threading

import orjson
import pytest
from rich.console import Console

from bros_sglang.evals.live import campaign as campaign_module
from bros_sglang.evals.live.campaign import Campaign, run_campaign
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.load import LoadPlan
from bros_sglang.evals.live.options import LiveOptions, campaign_of, plan_of, policies_of
from bros_sglang.evals.live.policy_flags import POLICIES, choose
from bros_sglang.evals.live.table import comparison_table, format_share
from bros_sglang.evals.live.watch import Watch
from bros_sglang.evals.metrics.write import read_requests
from bros_sglang.evals.workloads.errors import WorkloadError
from bros_sglang.evals.workloads.spec import parse_workload
from bros_sglang.request_class import RequestClass

from .streaming_server import StreamingServer


@pytest.fixture
def server():
    """A streaming server on a thread of its own: the client runs its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    streaming = StreamingServer()
    asyncio.run_coroutine_threadsafe(streaming.__aenter__(), loop).result(10)
    yield streaming
    asyncio.run_coroutine_threadsafe(streaming.__aexit__(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def plan():
    rt = parse_workload("uniform:prompt=10-20,output=3-6,rate=40", RequestClass.RT, seconds=0.4, ttft_ms=500)
    be = parse_workload("uniform:prompt=10-20,output=9,outstanding=4", RequestClass.BE, exact_limit=True)
    return LoadPlan(rt, be, seconds=0.4)


class Quiet:
    def starting(self, policy, round_number, waited_s): ...
    def running(self, policy, round_number, state): ...
    def finished(self, policy, round_number, result): ...


@pytest.fixture
def started(monkeypatch, server):
    """Servers that a campaign starts, in order; each is the streaming server in truth."""
    events = []

    class FakeProcess:
        def __init__(self, command, log, **kwargs):
            self.command, self.url = command, server.url
            log.write_text("log")

        def __enter__(self):
            events.append(("start", self.command[-1]))
            return self

        def __exit__(self, *exc):
            events.append(("stop", self.command[-1]))

        def exit_status(self):
            return None

    monkeypatch.setattr(campaign_module, "ServerProcess", FakeProcess)
    return events


def test_rounds_begin_with_another_policy_each_and_hold_every_policy_once():
    order = Campaign(LoadPlan(None, None, 1), choose("fcfs,priority,bros"), rounds=3).order()
    assert [policy.name for number, policy in order if number == 1] == ["priority", "bros", "fcfs"]
    for number in range(3):
        assert {policy.name for n, policy in order if n == number} == {"fcfs", "priority", "bros"}


def test_one_server_at_a_time_and_one_for_two_policies_with_the_same_flags(plan, started, tmp_path):
    campaign = Campaign(plan, choose("rt-alone,fcfs,bros"), command=["serve"])
    outcomes = run_campaign(campaign, tmp_path, Quiet())
    assert started == [("start", "fcfs"), ("stop", "fcfs"), ("start", "bros"), ("stop", "bros")]
    alone, fcfs, _ = (outcome.result for outcome in outcomes)
    assert alone["be"]["requests"] == 0 < fcfs["be"]["requests"]
    assert alone["policy"] == "rt-alone"


def test_files_hold_medians_each_round_and_each_request(plan, started, tmp_path):
    run_campaign(Campaign(plan, choose("fcfs,bros"), rounds=2, command=["serve"]), tmp_path, Quiet())
    results = orjson.loads((tmp_path / "results.json").read_bytes())
    assert [(r["policy"], r["rounds"]) for r in results] == [("fcfs", 2), ("bros", 2)]
    rounds = orjson.loads((tmp_path / "rounds.json").read_bytes())
    assert [(r["round"], r["policy"]) for r in rounds] == [(1, "fcfs"), (1, "bros"), (2, "bros"), (2, "fcfs")]
    assert set(read_requests(tmp_path / "requests.parquet")) == {
        (p, n) for p in ("fcfs", "bros") for n in (1, 2)
    }


def test_what_was_measured_before_a_failure_is_kept(plan, started, tmp_path, server, monkeypatch):
    class Breaks(Quiet):
        def finished(self, policy, round_number, result):
            server.status = 500

    with pytest.raises(LiveError, match=r"every request failed|requests in a row failed"):
        run_campaign(Campaign(plan, choose("fcfs,bros"), command=["serve"]), tmp_path, Breaks())
    assert [r["policy"] for r in orjson.loads((tmp_path / "results.json").read_bytes())] == ["fcfs"]
    assert started[-1] == ("stop", "bros")


def test_a_request_beyond_the_servers_pool_is_refused_before_the_run(plan, started, tmp_path, server):
    server.pool_tokens = 20
    with pytest.raises(WorkloadError, match="do not fit the pool of 20 tokens"):
        run_campaign(Campaign(plan, choose("fcfs"), command=["serve"]), tmp_path, Quiet())


def test_a_server_that_runs_already_is_measured_and_none_is_started(plan, started, tmp_path, server):
    server.owner = "vllm"
    outcomes = run_campaign(Campaign(plan, [POLICIES["fcfs"]], url=server.url), tmp_path, Quiet())
    assert started == []
    assert outcomes[0].result["rt"]["finished"] > 0
    rt = next(b for b in server.bodies if b["custom_params"]["bros"]["class"] == "rt")
    assert rt["priority"] < 0  # vLLM serves low values first


@pytest.mark.parametrize(
    ("names", "message"), [("fcfs,nope", "unknown policy 'nope'"), ("", "once"), ("fcfs,fcfs", "once")]
)
def test_bad_policy_lists(names, message):
    with pytest.raises(LiveError, match=message):
        choose(names)


def test_progress_and_table_fit_80_columns_in_a_pipe(plan, started, tmp_path, capsys):
    console = Console(width=80)
    campaign = Campaign(plan, choose("rt-alone,fcfs,bros"), command=["serve"])
    with Watch(console, runs=3, seconds=0.4) as watch:
        outcomes = run_campaign(campaign, tmp_path, watch)
    console.print(comparison_table([outcome.result for outcome in outcomes]))
    out = capsys.readouterr().out
    assert "[3/3] bros: RT TTFT p50" in out
    assert "\x1b" not in out
    table = out[out.index("policy") :]
    assert all(len(line) <= 80 for line in table.splitlines())
    assert "bros" in table


def test_a_share_is_only_100_percent_when_it_is():
    assert [format_share(x) for x in (1.0, 0.9999, 0.5, 0.0001, 0.0, None)] == [
        "100 %",
        "99.9 %",
        "50.0 %",
        "0.1 %",
        "0 %",
        "–",
    ]


def test_policies_on_one_server_stay_together_in_every_round():
    order = Campaign(LoadPlan(None, None, 1), choose("rt-alone,fcfs,bros-rt-alone,bros"), rounds=2).order()
    assert [policy.name for number, policy in order if number == 1] == [
        "bros-rt-alone",
        "bros",
        "rt-alone",
        "fcfs",
    ]


def options(**changes):
    base = {
        "url": None, "label": "server", "bounds": False, "policies": "none", "model_path": "m",
        "server_args": "", "rt": "uniform:rate=4", "be": "uniform:outstanding=2", "seconds": 1.0,
        "warmup": 0.0, "rounds": 1, "speed": 1.0, "ttft_ms": 100.0, "tpot_ms": 20.0, "seed": 0, "api": "auto",
    }  # fmt: skip
    return LiveOptions(**{**base, **changes})


def test_any_engine_is_started_by_its_command_beside_its_own_rt_alone(tmp_path):
    given = options(
        policies="fcfs",
        servers=("vllm=A=1 B='x y' vllm serve {model} --port {port}", "other=serve --on=127.0.0.1:{port}"),
    )
    plan = plan_of(given)
    policies = policies_of(given, plan)
    assert [policy.name for policy in policies] == [
        "fcfs", "vllm rt-alone", "vllm", "other rt-alone", "other"
    ]  # fmt: skip
    alone, both = policies[1:3]
    assert (alone.rt, alone.be, both.rt, both.be) == (True, False, True, True)
    assert alone.server == both.server
    assert dict(both.env) == {"A": "1", "B": "x y"}
    campaign = campaign_of(given, plan, policies, tmp_path)
    assert campaign.model == "m"
    bounded = policies_of(options(servers=given.servers[:1], bounds=True), plan)
    assert [policy.name for policy in bounded] == ["vllm rt-alone", "vllm be-alone", "vllm"]
    rt_only = options(servers=given.servers[:1], be="none")
    assert [policy.name for policy in policies_of(rt_only, plan_of(rt_only))] == ["vllm"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"servers": ("vllm serve",)}, "write NAME=COMMAND"),
        ({"servers": ("vllm=",)}, "no command"),
        ({"servers": ("vllm=A=1",)}, "no command"),
        ({"servers": ("vllm=vllm serve m",)}, r"no \{port\}"),
        ({"servers": ("vllm='serve {port}",)}, "quotation"),
        ({"servers": ("a=s {port}", "a=t {port}")}, "a name of its own"),
        ({"servers": ("fcfs=s {port}",), "policies": "fcfs"}, "a name of its own"),
        ({}, "give a --server"),
        ({"servers": ("a=s {port}",), "url": "http://127.0.0.1:1"}, "one of the two"),
    ],
)
def test_bad_server_commands(changes, message):
    given = options(**changes)
    with pytest.raises(LiveError, match=message):
        policies_of(given, plan_of(given))
