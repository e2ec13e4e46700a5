"""What keeping preempted KV saves where the pool is short: replays of one load, one mechanism off at a time.

    python -m bros_sglang.evals.memory.pressure --rt sharegpt:rate=3 --be paper:outstanding=128 \
        --pool-tokens 98000 --seconds 120 --json FILE

Every variant is `--policy bros`; what a variant changes is a setting, a server flag, or a function of
`bros_sglang.memory` that is replaced in the process of its replay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bros_sglang.evals.replay.policies import HOST_CACHE_FLAGS
from bros_sglang.evals.replay.processes import ENVIRONMENT, PRELOAD

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from bros_sglang.evals.replay.job import ReplayJob

_WRITE_BACK = {"hicache-write-policy": "write_back"}
_DROPPED = {"keep_preempted": False}
_NO_HEADROOM = {"headroom_min_share": 0.0, "headroom_max_share": 0.0}


def _place_from_one_end() -> None:
    from bros_sglang.memory.two_ended_free_list import TwoEndedFreeList

    take_high = TwoEndedFreeList.take_high

    def alloc(self: Any, need_size: int) -> Any:
        return take_high(self, need_size) if self.ensure(need_size) else None

    from bros_sglang.memory.allocator import BidirectionalTokenToKVPoolAllocator

    BidirectionalTokenToKVPoolAllocator.alloc = alloc  # type: ignore[method-assign]


def _evict_by_recency() -> None:
    from bros_sglang.memory import radix_cache

    vars(radix_cache)["node_priority"] = lambda *_args, **_kwargs: 0


def _pin_nothing() -> None:
    from bros_sglang.memory import host_pins

    vars(host_pins)["PINNED_SHARE"] = 0.0


@dataclass(frozen=True)
class Variant:
    """What differs from the policy as it is."""

    about: str
    settings: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    patch: Callable[[], None] | None = None


VARIANTS = {
    "all on": Variant("as it is"),
    "dropped": Variant("a victim's KV is dropped, as stock does", _DROPPED),
    "one end": Variant("all slots from one end", patch=_place_from_one_end),
    "lru": Variant("eviction by recency alone, whatever the class", patch=_evict_by_recency),
    "no headroom": Variant("no room kept for real-time arrivals", _NO_HEADROOM),
    "no headroom, dropped": Variant("neither", _NO_HEADROOM | _DROPPED),
    "host cache": Variant("hierarchical cache: preempted KV comes back", flags=HOST_CACHE_FLAGS),
    "host cache, dropped": Variant("hierarchical cache, a victim's KV dropped", _DROPPED, HOST_CACHE_FLAGS),
    "host cache, not pinned": Variant("nothing keeps it in host memory", {}, HOST_CACHE_FLAGS, _pin_nothing),
    "host cache, write-back": Variant(
        "copied when evicted, not before", flags=HOST_CACHE_FLAGS | _WRITE_BACK
    ),
}


def _run(job: ReplayJob, variant: Variant, pipe: Connection) -> None:
    from bros_sglang.evals.metrics.registry import compute_result
    from bros_sglang.evals.metrics.run import Run
    from bros_sglang.evals.replay.scheduler_job import run_on_scheduler

    if variant.patch is not None:
        variant.patch()
    flags = {
        f"{'no-' if value is False else ''}bros-{key.replace('_', '-')}": True if value is False else value
        for key, value in variant.settings.items()
    }
    outcome = run_on_scheduler(replace(job, extra_flags={**job.extra_flags, **flags, **variant.flags}))
    result = compute_result(Run(outcome.records, outcome.facts))
    samples = outcome.facts.samples
    pipe.send(
        {
            "rt_attainment": result["rt"]["attainment"],
            "rt_ttft_p99_ms": result["rt"]["ttft_ms"]["p99"],
            "be_tokens_per_s": result["be"]["tokens_per_s"],
            "preemptions": result["preemptions"],
            "recomputed_tokens": result["tokens"]["recomputed"],
            "loaded_back_tokens": result["tokens"]["loaded_back"],
            "rt_tokens_held": fmean(sample.rt_tokens or 0 for sample in samples),
            "be_tokens_held": fmean(sample.be_tokens or 0 for sample in samples),
            "cached_tokens": fmean(sample.cached_tokens or 0 for sample in samples),
        }
    )
    os._exit(0)


def main(
    rt: Annotated[str, typer.Option(help="Real-time workload.")] = "sharegpt:rate=3",
    be: Annotated[str, typer.Option(help="Best-effort workload.")] = "paper:outstanding=128",
    pool_tokens: Annotated[int, typer.Option(help="KV pool.")] = 98_000,
    seconds: Annotated[float, typer.Option(help="Virtual seconds.")] = 120.0,
    speed: Annotated[float, typer.Option(help="Speed of a trace.")] = 1.0,
    ttft_ms: Annotated[float, typer.Option(help="TTFT target, ms.")] = 400.0,
    tpot_ms: Annotated[float, typer.Option(help="TPOT target, ms.")] = 50.0,
    step_time: Annotated[str, typer.Option(help="Step-time model.")] = "affine-llama3-8b-h200",
    variants: Annotated[str, typer.Option(help="Some of them, separated by semicolons.")] = ";".join(
        VARIANTS
    ),
    seeds: Annotated[int, typer.Option(help="Draws of the workload.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
) -> None:
    """Replay a load under each variant and print what it cost."""
    from bros_sglang.evals.replay.compare import CompareOptions, jobs_for

    os.environ.update(ENVIRONMENT)
    context = get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    rows: list[dict[str, Any]] = []
    for seed in range(seeds):
        options = CompareOptions(
            rt=rt,
            be=be,
            policies=("bros",),
            step_time=step_time,
            pool_tokens=pool_tokens,
            seconds=seconds,
            speed=speed,
            ttft_ms=ttft_ms,
            tpot_ms=tpot_ms,
            seed=seed,
        )
        (job,) = jobs_for(options)
        for name in variants.split(";"):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(job, VARIANTS[name], sender))
            process.start()
            sender.close()
            row = {"variant": name, "about": VARIANTS[name].about, "seed": seed, **receiver.recv()}
            process.join()
            rows.append(row)
            typer.echo(
                f"{name:24} seed {seed}: RT within {row['rt_attainment']:.1%}, "
                f"BE {row['be_tokens_per_s']:,.0f} tokens/s, {row['preemptions']} preemptions, "
                f"{row['recomputed_tokens']:,} recomputed, {row['loaded_back_tokens']:,} loaded back"
            )
            if json_file is not None:
                load = {"rt": rt, "be": be, "pool_tokens": pool_tokens, "seconds": seconds, "speed": speed}
                json_file.write_text(json.dumps({"load": load, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
