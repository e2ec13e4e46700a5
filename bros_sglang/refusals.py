"""SGLang features that bros does not support: refused at start, with the flag to drop and the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple


class Refusal(NamedTuple):
    """One unsupported feature."""

    field: str  # of ServerArgs
    refused: Callable[[Any], bool]  # on the field's value
    flag: str
    reason: str


def _more_than_one(value: Any) -> bool:
    return value is not None and value > 1


def _is_set(value: Any) -> bool:
    return bool(value)


REFUSALS: Final[tuple[Refusal, ...]] = (
    Refusal(
        "pp_size",
        _more_than_one,
        "--pp-size",
        "pipeline stages schedule micro-batches that bros does not plan yet",
    ),
    Refusal(
        "disaggregation_mode",
        lambda value: value not in (None, "null"),
        "--disaggregation-mode",
        "prefill and decode on different engines share no slack to lend",
    ),
    Refusal("enable_pdmux", _is_set, "--enable-pdmux", "prefill and decode streams are planned apart there"),
    Refusal(
        "dllm_algorithm",
        _is_set,
        "--dllm-algorithm",
        "diffusion LLMs produce blocks, which have no TPOT deadline",
    ),
    Refusal(
        "speculative_algorithm",
        _is_set,
        "--speculative-algorithm",
        "a step yields a varying number of tokens, which the step plan does not model yet",
    ),
    Refusal(
        "enable_dp_attention",
        _is_set,
        "--enable-dp-attention",
        "ranks hold different requests, and a step's plan must be the same on all",
    ),
    Refusal(
        "enable_hisparse",
        _is_set,
        "--enable-hisparse",
        "its decode batches are built outside the scheduler's loop",
    ),
    Refusal(
        "enable_lmcache",
        _is_set,
        "--enable-lmcache",
        "eviction is class-aware in SGLang's own radix cache only",
    ),
    Refusal(
        "enable_flexkv",
        _is_set,
        "--enable-flexkv",
        "eviction is class-aware in SGLang's own radix cache only",
    ),
    Refusal(
        "enable_unified_cache_external_linker",
        _is_set,
        "--enable-unified-cache-external-linker",
        "eviction is class-aware in SGLang's own radix cache only",
    ),
    Refusal(
        "radix_cache_backend",
        _is_set,
        "--radix-cache-backend",
        "bros brings a radix cache of its own, a subclass of SGLang's",
    ),
    Refusal(
        "disable_radix_cache",
        _is_set,
        "--disable-radix-cache",
        "preempted requests keep their KV in the radix cache",
    ),
    Refusal(
        "enable_priority_scheduling",
        _is_set,
        "--enable-priority-scheduling",
        "bros computes priorities from deadlines; a request's `priority` names its class without this flag",
    ),
    Refusal(
        "chunked_prefill_size",
        lambda value: value is not None and value <= 0,
        "--chunked-prefill-size",
        "steps are sized by prefill chunks; give a positive size or leave it to SGLang",
    ),
    Refusal(
        "radix_eviction_policy",
        lambda value: value not in (None, "lru", "priority"),
        "--radix-eviction-policy",
        "bros evicts best-effort cache before real-time cache; leave the flag away",
    ),
    Refusal("enable_prefill_delayer", _is_set, "--enable-prefill-delayer", "bros decides when prefill runs"),
    Refusal(
        "scheduler_recv_interval",
        _more_than_one,
        "--scheduler-recv-interval",
        "the agreed clock arrives with the requests, every pass",
    ),
    Refusal(
        "dp_size",
        _more_than_one,
        "--dp-size",
        "its controller drops the time of a request's receipt; run one server per replica behind a router",
    ),
    Refusal(
        "tokenizer_worker_num",
        _more_than_one,
        "--tokenizer-worker-num",
        "headers, service_tier and /bros/status are served by a single process so far",
    ),
    Refusal("use_ray", _is_set, "--use-ray", "not tried yet"),
    Refusal("is_embedding", _is_set, "--is-embedding", "embedding requests have no tokens with deadlines"),
    Refusal("encoder_only", _is_set, "--encoder-only", "there is nothing to schedule by deadline"),
)


def refused_features(server_args: Any) -> list[str]:
    """Return one line for each unsupported feature that these server arguments ask for."""
    lines = [
        f"{item.flag} (set to {value!r}) is not supported with --policy bros: {item.reason}"
        for item in REFUSALS
        if item.refused(value := getattr(server_args, item.field))
    ]
    if os.environ.get("SGLANG_RUST_SERVER", "").lower() in ("1", "true"):
        lines.append(
            "SGLANG_RUST_SERVER is not supported with --policy bros: tags are checked in SGLang's own server"
        )
    return lines
