"""The policies that a live run can start: server flags, and which classes are sent."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace

from bros_sglang.evals.live.errors import LiveError


@dataclass(frozen=True, slots=True)
class LivePolicy:
    """One way to serve the load."""

    name: str
    flags: tuple[str, ...]  # of the server
    about: str
    rt: bool = True  # whether RT is sent
    be: bool = True
    command: tuple[str, ...] = ()  # of another engine's server; without one it is SGLang's, with `flags`
    env: tuple[tuple[str, str], ...] = ()

    @property
    def server(self) -> tuple[object, ...]:
        """What tells one server from another: policies with equal ones can share it."""
        return (self.flags, self.command, self.env)


_FCFS = ("--schedule-policy", "fcfs")
# The classes' priorities are 20 apart (dialect.py), above SGLang's default threshold of 10 for preempting.
_PRIORITY = (*_FCFS, "--enable-priority-scheduling", "--priority-scheduling-preemption-threshold", "10")

_BROS = ("--schedule-policy", "bros")

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
        LivePolicy(
            "bros-rt-alone", _BROS, "RT without any BE on bros: what its own passes cost RT", be=False
        ),
        LivePolicy("bros", _BROS, "bros"),
        LivePolicy(
            "bros-at-once", (*_BROS, "--no-bros-late-launch"), "bros, each step planned as soon as it can be"
        ),
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


_NAMED = re.compile(r"([A-Za-z][\w.-]*)=(.*)", re.DOTALL)
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


def engine(text: str) -> LivePolicy:
    """Read `NAME=[VARIABLE=VALUE …] COMMAND` of a server of any engine, as a shell would split it.

    `{port}` and `{model}` in the command are filled in when it is started. Raises LiveError.
    """
    named = _NAMED.fullmatch(text.strip())
    if named is None:
        raise LiveError(
            f"--server {text!r}: write NAME=COMMAND, such as 'vllm=vllm serve {{model}} --port {{port}}'"
        )
    name, rest = named.groups()
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise LiveError(f"--server {name}: {error}") from error
    env = []
    while words and (assignment := _ASSIGNMENT.fullmatch(words[0])) is not None:
        env.append((assignment[1], assignment[2]))
        del words[0]
    if not words:
        raise LiveError(f"--server {name}: there is no command after the name")
    if not any("{port}" in word for word in words):
        raise LiveError(f"--server {name}: the command has no {{port}}: the server would not be found")
    return LivePolicy(name, (), f"{name}, started by its own command", command=tuple(words), env=tuple(env))


def bounds_of(policy: LivePolicy) -> tuple[LivePolicy, LivePolicy]:
    """Return RT alone and BE alone on the same server."""
    return (
        replace(policy, name=f"{policy.name} rt-alone", about=f"RT without BE on {policy.name}", be=False),
        replace(policy, name=f"{policy.name} be-alone", about=f"BE without RT on {policy.name}", rt=False),
    )
