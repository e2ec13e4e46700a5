"""The schedulers under comparison: how each is configured, stated with each result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bros_sglang.evals.replay.arrivals import Tagging

Load = Literal["both", "rt", "be"]


class UnknownPolicyError(ValueError):
    """A policy name that is not in the table."""


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """One column of a comparison."""

    name: str
    about: str
    engine: Literal["sglang", "round-robin", "vllm", "tgi", "free-swap"] = "sglang"
    load: Load = "both"
    flags: dict[str, Any] = field(default_factory=dict)  # of `sglang serve`, without the dashes in front
    tagging: Tagging = field(default_factory=Tagging)
    rule: dict[str, Any] = field(default_factory=dict)  # settings of a model of another system

    def describe(self) -> dict[str, Any]:
        """Return the configuration, JSON-ready."""
        flags = {key: value for key, value in self.flags.items() if value is not None}
        tagging = self.tagging
        return {
            "engine": "SGLang's own scheduler"
            if self.engine in ("sglang", "round-robin")
            else "a bound"
            if self.engine == "free-swap"
            else f"model of {self.engine}",
            "about": self.about,
            "load": self.load,
            "flags": flags,
            "rule": self.rule,
            "requests_carry": {
                "bros_tag": tagging.bros_tag,
                "rt_priority": tagging.rt_priority,
                "be_priority": tagging.be_priority,
            },
        }


# Further apart than `--priority-scheduling-preemption-threshold` (10), which a preemption has to exceed.
RT_PRIORITY, BE_PRIORITY = 100, -100
_BY_PRIORITY = Tagging(rt_priority=RT_PRIORITY, be_priority=BE_PRIORITY)
_STOCK_CHUNK = 2048
_MIXED_CHUNK = 1024
HOST_CACHE_FLAGS: dict[str, Any] = {
    "enable-hierarchical-cache": True,
    "hicache-ratio": 2,
    "hicache-io-backend": "direct",
    "hicache-mem-layout": "layer_first",
}

POLICIES: dict[str, PolicySpec] = {
    spec.name: spec
    for spec in (
        PolicySpec(
            "rt-alone",
            "RT requests alone on stock fcfs: what RT would get without BE",
            load="rt",
            flags={"schedule-policy": "fcfs", "chunked-prefill-size": _STOCK_CHUNK},
        ),
        PolicySpec(
            "be-alone",
            "BE requests alone on stock fcfs: what BE would get without RT",
            load="be",
            flags={"schedule-policy": "fcfs", "chunked-prefill-size": _STOCK_CHUNK},
        ),
        PolicySpec(
            "fcfs",
            "stock SGLang, first come first served",
            flags={"schedule-policy": "fcfs", "chunked-prefill-size": _STOCK_CHUNK},
        ),
        PolicySpec(
            "fcfs-mixed",
            "stock fcfs with decode rows mixed into prefill chunks",
            flags={
                "schedule-policy": "fcfs",
                "chunked-prefill-size": _MIXED_CHUNK,
                "enable-mixed-chunk": True,
            },
        ),
        PolicySpec(
            "lpm",
            "stock SGLang, longest prefix match first",
            flags={"schedule-policy": "lpm", "chunked-prefill-size": _STOCK_CHUNK},
        ),
        PolicySpec(
            "priority",
            "stock priority scheduling with preemption",
            flags={
                "schedule-policy": "fcfs",
                "chunked-prefill-size": _STOCK_CHUNK,
                "enable-priority-scheduling": True,
            },
            tagging=_BY_PRIORITY,
        ),
        PolicySpec(
            "priority-mixed",
            "stock priority scheduling with preemption, priority eviction and mixed chunks",
            flags={
                "schedule-policy": "fcfs",
                "chunked-prefill-size": _MIXED_CHUNK,
                "enable-priority-scheduling": True,
                "radix-eviction-policy": "priority",
                "enable-mixed-chunk": True,
            },
            tagging=_BY_PRIORITY,
        ),
        PolicySpec(
            "round-robin",
            "RT and BE admitted in turn (the baseline of arXiv 2504.09590, section 6) on the stock scheduler",
            engine="round-robin",
            flags={
                "schedule-policy": "fcfs",
                "chunked-prefill-size": _MIXED_CHUNK,
                "enable-mixed-chunk": True,
            },
            tagging=Tagging(bros_tag=True),
        ),
        PolicySpec(
            "round-robin-apart",
            "the same with prefill and decode in steps of their own, as in the paper",
            engine="round-robin",
            flags={"schedule-policy": "fcfs", "chunked-prefill-size": _STOCK_CHUNK},
            tagging=Tagging(bros_tag=True),
        ),
        PolicySpec(
            "vllm-fcfs",
            "a model of vLLM V1's scheduling rule, --scheduling-policy fcfs",
            engine="vllm",
            rule={
                "source": "vllm/v1/core/sched/scheduler.py",
                "by_priority": False,
                "max_num_batched_tokens": 8192,
                "block_size": 16,
                "prefix_cache": False,
            },
        ),
        PolicySpec(
            "vllm-priority",
            "a model of vLLM V1's scheduling rule, --scheduling-policy priority, RT above BE",
            engine="vllm",
            rule={
                "source": "vllm/v1/core/sched/scheduler.py",
                "by_priority": True,
                "max_num_batched_tokens": 8192,
                "block_size": 16,
                "prefix_cache": False,
            },
        ),
        PolicySpec(
            "tgi",
            "a model of Text Generation Inference's scheduling rule",
            engine="tgi",
            rule={
                "source": "huggingface/text-generation-inference router/src/infer/v2/{scheduler,queue}.rs",
                "waiting_served_ratio": 0.3,
                "max_waiting_tokens": 20,
                "max_batch_prefill_tokens": 4096,
                "prefix_cache": False,
            },
        ),
        PolicySpec(
            "bros",
            "this project's policy",
            flags={"schedule-policy": "bros"},
            tagging=Tagging(bros_tag=True),
        ),
        PolicySpec(
            "bros-host-cache",
            "this project's policy with SGLang's hierarchical cache, twice the pool in host memory",
            flags={"schedule-policy": "bros", **HOST_CACHE_FLAGS},
            tagging=Tagging(bros_tag=True),
        ),
        PolicySpec(
            "free-swap",
            "a bound for every policy that puts RT first: BE gives way and comes back for nothing",
            engine="free-swap",
        ),
    )
}  # fmt: skip


def policy_spec(name: str) -> PolicySpec:
    """Return a policy by name.

    Raises:
        UnknownPolicyError: no such policy.
    """
    try:
        return POLICIES[name]
    except KeyError:
        raise UnknownPolicyError(f"unknown policy {name!r}: use one of {', '.join(POLICIES)}") from None
