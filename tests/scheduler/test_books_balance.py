"""Books of KV at every pass of replays through the real scheduler, and everything given back at their end."""

from __future__ import annotations

from typing import Any

import pytest

from bros_sglang.request_class import RequestClass
from tests.scheduler.watched_replay import NO_HEADROOM, Draw, Seen, Watch, watch

pytestmark = pytest.mark.server  # builds SGLang's scheduler

RT, BE = RequestClass.RT, RequestClass.BE
NO_OVERLAP = {"disable-overlap-schedule": True}
HOST_CACHE = {
    "enable-hierarchical-cache": True,
    "hicache-ratio": 4,
    "hicache-io-backend": "direct",
    "hicache-mem-layout": "layer_first",
}
# Some real-time prompts need most of the pool, which best-effort requests fill.
MIX = (
    Draw(RT, 20, 12, (5, 1000), (1, 60), tpot_ms=9.0, prefixes=4),
    Draw(BE, 30, 100, (5, 250), (40, 120), limit=120, prefixes=6),
)


def all_ended(seen: Seen, requests: int) -> None:
    assert len(seen.ended) == requests
    assert seen.in_flight == []
    assert {rid: error for rid, (_, error) in seen.ended.items() if error} == {}
    assert seen.left_over == {}


@pytest.mark.parametrize(
    ("page_size", "flags"),
    [
        pytest.param(1, {}, id="pages of 1", marks=pytest.mark.slow),  # test_aborts.py runs it, too
        pytest.param(1, NO_OVERLAP, id="pages of 1, no overlap", marks=pytest.mark.slow),
        pytest.param(16, {}, id="pages of 16", marks=pytest.mark.slow),
        pytest.param(16, NO_OVERLAP, id="pages of 16, no overlap"),
    ],
)
def test_books_balance_at_every_pass(page_size: int, flags: dict[str, Any]) -> None:
    seen = watch(
        Watch(
            MIX,
            page_size=page_size,
            pool_tokens=1536,
            slots=24,
            flags=NO_HEADROOM | flags,
            trials=("flush_cache",),
        )
    )
    all_ended(seen, 50)
    assert set(seen.trials) == {"flush_cache: False"}, "a flush under load has to be refused"
    assert seen.preempted[BE] > 0, "the pool was never short: the test shows nothing"
    assert seen.preempted[RT] == 0
    assert seen.states["mid-chunk"] > 0


@pytest.mark.parametrize("policy", ["write_through", pytest.param("write_back", marks=pytest.mark.slow)])
def test_books_balance_with_a_cache_in_host_memory(policy: str) -> None:
    flags = NO_HEADROOM | HOST_CACHE | {"hicache-write-policy": policy}
    seen = watch(Watch(MIX, pool_tokens=1536, slots=24, flags=flags))
    all_ended(seen, 50)
    assert seen.preempted[BE] > 0
    assert seen.loaded_back_tokens > 0
    if policy == "write_through":
        assert seen.host_writes_seen > 0


@pytest.mark.parametrize("policy", ["write_through", pytest.param("write_back", marks=pytest.mark.slow)])
def test_preempted_kv_stays_in_host_memory_until_it_runs_again(policy: str) -> None:
    """Finished chats fill the host pool; what they push out is not what preempted requests wait for."""
    draws = (
        Draw(RT, 60, 12, (300, 700), (1, 20)),
        Draw(BE, 30, 100, (150, 250), (100, 120), limit=120),
    )
    flags = NO_HEADROOM | HOST_CACHE | {"hicache-ratio": 2, "hicache-write-policy": policy}
    kept = watch(Watch(draws, pool_tokens=2560, slots=24, flags=flags))
    plain = watch(Watch(draws, pool_tokens=2560, slots=24, flags=NO_HEADROOM))
    all_ended(kept, 90)
    assert kept.preempted[BE] > 10
    assert plain.recomputed_tokens > 2000
    assert kept.recomputed_tokens < 0.25 * plain.recomputed_tokens


def test_a_victims_copy_to_host_pins_no_room() -> None:
    """One real-time request needs the room of one best-effort request: one is preempted, not all."""
    draws = (
        Draw(BE, 6, 1000, (180, 180), (400, 400), limit=400),
        Draw(RT, 1, 2, (300, 300), (4, 4), limit=4),
    )
    flags = NO_HEADROOM | HOST_CACHE | {"hicache-write-policy": "write_through"}
    copied = watch(Watch(draws, pool_tokens=2048, flags=flags))
    plain = watch(Watch(draws, pool_tokens=2048, flags=NO_HEADROOM))
    all_ended(copied, 7)
    assert 0 < plain.preempted[BE] < 6
    assert copied.preempted[BE] == plain.preempted[BE]


@pytest.mark.parametrize("page_size", [1, pytest.param(16, marks=pytest.mark.slow)])
def test_real_time_alone_may_exhaust_the_pool(page_size: int) -> None:
    """Answers outgrow the pool: real-time requests give way to each other, and all end."""
    draws = (Draw(RT, 12, 200, (100, 200), (250, 300), limit=300),)
    seen = watch(Watch(draws, page_size=page_size, pool_tokens=1024, flags=NO_HEADROOM))
    all_ended(seen, 12)
    assert all(250 <= tokens <= 300 for tokens, _ in seen.ended.values())
    assert seen.preempted[RT] > 0
