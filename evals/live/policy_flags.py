"""The policies that a live run can start: server flags, and which classes are sent."""

from __future__ import annotations

from dataclasses import dataclass

from bros_sglang.evals.live.errors import LiveError


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """One way to serve the load."""

    name: str
    flags: tuple[str, ...]  # of the server
    about: str
    rt: bool = True  # whether RT is sent
    be: bool = True


_FCFS = ("--schedule-policy", "fcfs")
# The classes' priorities are 20 apart (dialect.py), above SGLang's default threshold of 10 for preempting.
_PRIORITY = (*_FCFS, "--enable-priority-scheduling", "--priority-scheduling-preemption-threshold", "10")

POLICIES: dict[str, LivePolicy] = {
    policy.name: policy
    for policy in (
        LivePolicy("rt-alone", _FCFS, "RT without any BE: the bound for latency", be=False),
        LivePolicy("be-alone", _FCFS, "BE without any RT: the bound for throughput", rt=False),
        LivePolicy("fcfs", _FCFS, "stock SGLang, first come first served"),
        LivePolicy("lpm", ("--schedule-policy", "lpm"), "stock SGLang, longest cached prefix first"),
        LivePolicy("priority", _PRIORITY, "stock SGLang, priorities with preemption"),
        LivePolicy(
            "priority-mixed",
            (
                *_PRIORITY,
                "--enable-mixed-chunk",
                "--radix-eviction-policy",
                "priority",
                "--retraction-policy",
                "priority",
            ),
            "stock SGLang, priorities with preemption, priority eviction and mixed chunks",
        ),
        LivePolicy("bros", ("--schedule-policy", "bros"), "bros"),
    )
}


def choose(names: str) -> list[LivePolicy]:
    """Return the policies of a comma-separated list. Raises LiveError for an unknown or repeated name."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in POLICIES:
            raise LiveError(f"unknown policy {name!r}; known are {', '.join(POLICIES)}")
    if not chosen or len(set(chosen)) != len(chosen):
        raise LiveError(f"--policies {names!r}: name each policy once")
    return [POLICIES[name] for name in chosen]
