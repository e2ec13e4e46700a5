"""A `/bros/status` that moves like a real one: a day of RT load in two minutes, BE in what is left."""

from __future__ import annotations

import math

from bros_sglang._version import __version__
from bros_sglang.status import (
    BrosStatus,
    ClassKv,
    ClassStatus,
    KvStatus,
    LastMinute,
    PolicyConfig,
    PreemptionStatus,
    SchedulerStatus,
    SlackStatus,
    StepTimeStatus,
    Targets,
)

PERIOD_S = 120.0


def simulated_status(
    uptime_s: float, now_s: float, *, model: str = "mock", pool_tokens: int = 65_536, be_waiting: int = 0
) -> BrosStatus:
    """Return the status of an imagined server that has been up for `uptime_s` at Unix time `now_s`."""
    load = 0.5 - 0.5 * math.cos(2 * math.pi * uptime_s / PERIOD_S)  # 0 at night … 1 at noon
    minute = min(uptime_s, 60.0)
    rt_running = round(48 * load)
    be_running = round(96 * (1 - 0.8 * load))
    rt_kv = ClassKv(running_tokens=rt_running * 420, cached_tokens=round(6_000 + 4_000 * load))
    be_kv = ClassKv(running_tokens=be_running * 260, cached_tokens=round(9_000 * (1 - load)) + 1_500)
    held_rt = rt_kv.running_tokens + rt_kv.cached_tokens
    held_be = be_kv.running_tokens + be_kv.cached_tokens
    preempted = int(uptime_s / PERIOD_S * 14)
    attainment = 1.0 - 0.012 * load**4
    scheduler = SchedulerStatus(
        rt=ClassStatus(
            running=rt_running,
            waiting=round(3 * load**3),
            kv=rt_kv,
            last_minute=LastMinute(
                arrived=round(minute * 6 * load),
                finished=round(minute * 6 * load),
                prompt_tokens_per_s=2_400 * load,
                output_tokens_per_s=1_150 * load,
                cached_tokens_per_s=700 * load,
                ttft_attainment=attainment,
                tpot_attainment=min(1.0, attainment + 0.004),
                attainment=attainment,
                ttft_p50_s=0.06 + 0.05 * load,
                ttft_p99_s=0.19 + 0.16 * load,
                tpot_p50_s=0.021,
                tpot_p99_s=0.038 + 0.02 * load,
                queue_p99_s=0.05 * load,
            ),
            requests_total=round(uptime_s * 3),
            prompt_tokens_total=round(uptime_s * 1_200),
            output_tokens_total=round(uptime_s * 575),
            cached_tokens_total=round(uptime_s * 350),
            oldest_waiting_s=0.02 if load > 0.8 else None,
        ),
        be=ClassStatus(
            running=be_running,
            waiting=max(be_waiting, 0),
            parked=round(20 * load**2),
            kv=be_kv,
            last_minute=LastMinute(
                arrived=round(minute * 9),
                finished=round(minute * 9 * (1 - 0.6 * load)),
                prompt_tokens_per_s=5_200 * (1 - 0.7 * load),
                output_tokens_per_s=2_900 * (1 - 0.7 * load),
                cached_tokens_per_s=1_900 * (1 - 0.7 * load),
            ),
            requests_total=round(uptime_s * 6),
            prompt_tokens_total=round(uptime_s * 3_400),
            output_tokens_total=round(uptime_s * 1_900),
            cached_tokens_total=round(uptime_s * 1_200),
            oldest_waiting_s=12.5 if be_waiting else None,
        ),
        kv=KvStatus(
            pool_tokens=pool_tokens,
            free_tokens=pool_tokens - held_rt - held_be,
            be_frontier=min(held_be + 600, pool_tokens - held_rt),
            rt_frontier=pool_tokens - held_rt,
        ),
        slack=SlackStatus(
            tightest_s=0.4 - 0.31 * load if rt_running else None,
            tightest_rid="mock-rt-1" if rt_running else None,
            lent_s_total=uptime_s * 0.4,
        ),
        preemptions=PreemptionStatus(
            preempted_total=preempted,
            preempted_last_minute=round(7 * load),
            chunk_yields_total=preempted * 3,
            parked_passes_total=preempted * 40,
            recomputed_tokens_total=preempted * 35,
            restored_tokens_total=preempted * 310,
        ),
        step_time=StepTimeStatus(
            passes=round(minute * 45),
            mean_abs_error=0.06 + 0.02 * load,
            bias=0.01,
            p99_abs_error=0.22,
            last_predicted_s=0.0215,
            last_actual_s=0.0209,
            source="mock",
        ),
        batch_cap=128 if load > 0.7 else 256,
        passes_total=round(uptime_s * 45),
    )
    return BrosStatus(
        bros_version=__version__,
        sglang_version="mock",
        policy="bros",
        model=model,
        time_s=now_s,
        uptime_s=uptime_s,
        config=PolicyConfig(
            rt_targets=Targets(ttft_ms=400.0, tpot_ms=200.0), be_floor_share=0.05, slack_margin_ms=5.0
        ),
        schedulers=[scheduler],
    )
