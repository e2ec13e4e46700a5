"""Several policies under the same load, in interleaved rounds, each on a server of its own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from bros_sglang.evals.live import probe
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.load import LoadPlan, LoadState, run_load
from bros_sglang.evals.live.server_process import ServerProcess
from bros_sglang.evals.metrics.registry import compute_result
from bros_sglang.evals.metrics.rounds import median_result
from bros_sglang.evals.metrics.write import write_requests, write_results
from bros_sglang.evals.workloads.build import check_lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from bros_sglang.evals.live.dialect import Dialect
    from bros_sglang.evals.live.policy_flags import LivePolicy
    from bros_sglang.evals.metrics.run import Run


class Observer(Protocol):
    """What a campaign tells while it runs; a progress display."""

    def starting(self, policy: LivePolicy, round_number: int, waited_s: float) -> None:
        """Tell that a server is starting, again and again until it is up."""

    def running(self, policy: LivePolicy, round_number: int, state: LoadState) -> None:
        """Tell how the load is doing."""

    def finished(self, policy: LivePolicy, round_number: int, result: dict[str, Any]) -> None:
        """Tell one run's result."""


@dataclass(frozen=True)
class Campaign:
    """What to measure. The load of a policy is `plan` less the class that the policy leaves out."""

    plan: LoadPlan
    policies: Sequence[LivePolicy]
    rounds: int = 1
    url: str | None = None  # of a server that runs already: then none is started
    command: Sequence[str] = ()  # of SGLang's server; a policy's flags are added to it
    model: str = ""  # what `{model}` stands for in the command of another engine
    env: dict[str, str] = field(default_factory=dict)
    api: str = "auto"

    def order(self) -> list[tuple[int, LivePolicy]]:
        """Return (round, policy) as they run; each round begins with another server: all share drift.

        Policies on one server that follow each other stay together: it is started once a round for them.
        """
        groups = [list(group) for _, group in groupby(self.policies, key=lambda policy: policy.server)]
        return [
            (number, policy)
            for number in range(self.rounds)
            for index in range(len(groups))
            for policy in groups[(number + index) % len(groups)]
        ]


@dataclass(frozen=True)
class Outcome:
    """One policy's run in one round."""

    policy: LivePolicy
    round_number: int
    run: Run
    result: dict[str, Any]


def run_campaign(campaign: Campaign, folder: Path, observer: Observer) -> list[Outcome]:
    """Run everything, write the result files to `folder`, return the outcomes in the order of their making.

    Files are written also when the campaign is interrupted or a server fails: what was measured is not lost.
    Servers log to `server-….log` in the folder.
    """
    outcomes: list[Outcome] = []
    try:
        with contextlib.ExitStack() as stack:
            server: ServerProcess | None = None
            running: tuple[object, ...] | None = None
            for number, policy in campaign.order():
                if campaign.url is None and (server is None or policy.server != running):
                    stack.close()
                    running = policy.server
                    server = stack.enter_context(_server(campaign, folder, observer, policy, number))
                url = campaign.url or (server.url if server is not None else "")
                try:
                    outcomes.append(_measure(campaign, url, observer, policy, number))
                except LiveError as error:
                    raise _with_log(error, server) from error
    finally:
        write_outcomes(folder, campaign.policies, outcomes)
    return outcomes


def _with_log(error: LiveError, server: ServerProcess | None) -> LiveError:
    if server is None or (status := server.exit_status()) is None:
        return error
    return LiveError(f"the server ended with status {status} under load.\n{server.log_tail()}")


def _server(
    campaign: Campaign, folder: Path, observer: Observer, policy: LivePolicy, number: int
) -> ServerProcess:
    return ServerProcess(
        policy.command or [*campaign.command, *policy.flags],
        folder / f"server-{policy.name.replace(' ', '-')}-{number + 1}.log",
        env={**campaign.env, **dict(policy.env)},
        placeholders={"model": campaign.model} if policy.command else None,
        on_wait=lambda waited_s: observer.starting(policy, number, waited_s),
    )


def _measure(campaign: Campaign, url: str, observer: Observer, policy: LivePolicy, number: int) -> Outcome:
    dialect = probe.identify(url, campaign.api)
    outcome = measure_url(
        url, dialect, campaign.plan, policy, number, lambda state: observer.running(policy, number, state)
    )
    observer.finished(policy, number, outcome.result)
    return outcome


def measure_url(
    url: str,
    dialect: Dialect,
    plan: LoadPlan,
    policy: LivePolicy,
    number: int,
    on_tick: Callable[[LoadState], None] | None = None,
) -> Outcome:
    """Run the policy's share of the load on the server at `url`, from an empty cache.

    Raises WorkloadError for a request beyond the server's pool, LiveError where the server serves nothing.
    """
    share = replace(plan, rt=plan.rt if policy.rt else None, be=plan.be if policy.be else None)
    pool = probe.pool_tokens(url)
    for workload in (share.rt, share.be):
        if workload is not None and pool is not None:
            check_lengths(workload, pool_tokens=pool, first=10_000)
    probe.settle(url)
    run = run_load(url, dialect, share, on_tick)
    if run.records and all(record.error is not None for record in run.records):
        raise LiveError(f"{url}: every request failed, the last with: {run.records[-1].error}")
    run = replace(run, facts=replace(run.facts, policy=policy.name))
    probe.settle(url)
    return Outcome(policy, number, run, compute_result(run))


def results_of(policies: Sequence[LivePolicy], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return one result per policy that was measured: the medians over its rounds."""
    by_policy = [[o.result for o in outcomes if o.policy == policy] for policy in policies]
    return [median_result(rounds) for rounds in by_policy if rounds]


def write_outcomes(folder: Path, policies: Sequence[LivePolicy], outcomes: Sequence[Outcome]) -> None:
    """Write results.json (medians over the rounds), rounds.json (each round) and requests.parquet."""
    if not outcomes:
        return
    write_results(folder, results_of(policies, outcomes))
    raw = [{"round": outcome.round_number + 1, **outcome.result} for outcome in outcomes]
    write_results(folder, raw, name="rounds")
    write_requests(folder, [(o.policy.name, o.round_number + 1, o.run.records) for o in outcomes])
