"""Every place where bros touches SGLang's internals, in one table that start-up checks.

A seam is a dotted name in the installed SGLang. `missing_seams` resolves each one (and its parameters, where
bros relies on them); `require_seams` stops the process with the installed version, the missing name and the
supported range. Reading this table tells what to look at when SGLang moves on.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple

SUPPORTED_RANGE: Final = ">=0.5.23,<0.5.24"
TESTED_VERSION: Final = "0.5.23"
QUEUED_RID: Final = "bros-queued"  # marks the GetInternalStateReq that asks how many requests wait
CONFIG_RID: Final = "bros-config"  # marks the SetInternalStateReq that changes bros's settings
STATUS_RID: Final = "bros-status"  # marks the GetInternalStateReq that asks for bros's status alone

RESPONSES_NEEDS: Final = "openai_harmony"  # what SGLang's `/v1/responses` is made with

_SCHEDULER: Final = "sglang.srt.managers.scheduler"
_BATCH: Final = "sglang.srt.managers.schedule_batch"
_MEMORY: Final = "sglang.srt.mem_cache"


class Seam(NamedTuple):
    """One use of SGLang's internals."""

    module: str
    name: str  # attribute path below the module
    use: str  # what bros does with it
    parameters: tuple[str, ...] = ()  # parameters that bros passes by name or relies on
    needs: str = ""  # a package without which SGLang goes without the module, and bros too

    @property
    def path(self) -> str:
        """The dotted path of the seam."""
        return f"{self.module}.{self.name}"


SEAMS: Final[tuple[Seam, ...]] = (
    # Start-up and command line.
    Seam("sglang.srt.server_args", "ServerArgs.add_cli_args", "adds the policy and its flags"),
    Seam("sglang.srt.server_args", "ServerArgs.from_cli_args", "reads the flags", ("args",)),
    Seam("sglang.srt.server_args", "ServerArgs.resolve_once", "refuses, and sets what bros needs"),
    Seam("sglang.srt.server_args", "prepare_server_args", "`bros serve`", ("argv",)),
    Seam("sglang.launch_server", "run_server", "`bros serve`", ("server_args",)),
    Seam(
        "sglang.srt.managers.tokenizer_manager",
        "TokenizerManager._create_tokenized_object",
        "answers a malformed tag with 400",
        ("obj",),
    ),
    Seam(
        "sglang.srt.observability.req_time_stats",
        "APIServerReqTimeStats.__getstate__",
        "lets requests bring the time of their receipt",
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager",
        "TokenizerManager.generate_request",
        "reads tags in headers",
        ("obj", "request"),
    ),
    Seam(
        "sglang.srt.managers.tokenizer_manager",
        "TokenizerManager.__init__",
        "adds `/bros/status` to the HTTP server",
        ("server_args",),
    ),
    Seam(
        "sglang.srt.managers.tokenizer_control_mixin",
        "TokenizerControlMixin.get_internal_state",
        "its way to the schedulers and back carries `/bros/status`",
    ),
    Seam(
        "sglang.srt.managers.tokenizer_control_mixin",
        "TokenizerControlMixin.set_internal_state",
        "carries `/bros/config`",
        ("obj",),
    ),
    Seam("sglang.srt.managers.io_struct", "GetInternalStateReqOutput", "carries `/bros/status`"),
    Seam(
        "sglang.srt.entrypoints.openai.serving_base",
        "OpenAIServingBase.handle_request",
        "reads and reports `service_tier`",
        ("request", "raw_request"),
    ),
    Seam(
        "sglang.srt.entrypoints.openai.serving_responses",
        "OpenAIServingResponses.create_responses",
        "reads and reports `service_tier`",
        ("request", "raw_request"),
        needs=RESPONSES_NEEDS,
    ),
    Seam(
        "sglang.srt.entrypoints.openai.serving_responses",
        "OpenAIServingResponses._known_model_names",
        "accepts model aliases",
        needs=RESPONSES_NEEDS,
    ),
    Seam("sglang.srt.entrypoints.http_server", "app", "holds answers back until a request is let in"),
    Seam(
        "sglang.srt.utils.auth",
        "decide_request_auth",
        "lets in the API keys of the config",
        ("method", "path", "authorization_header", "auth_level"),
    ),
    Seam(
        "sglang.srt.observability.trace",
        "TraceReqContext.trace_set_root_attrs",
        "class and targets on spans",
        ("attrs",),
    ),
    Seam(
        "sglang.srt.observability.trace",
        "TraceReqContext.trace_set_thread_attrs",
        "class and targets on spans",
        ("attrs",),
    ),
    Seam(_SCHEDULER, "configure_scheduler_process", "arms bros in a scheduler process", ("server_args",)),
    # The scheduler's loop.
    Seam(_SCHEDULER, "Scheduler", "replaced by BrosScheduler"),
    Seam(_SCHEDULER, "Scheduler.init_chunked_prefill", "chooses mixed chunks"),
    Seam(_SCHEDULER, "Scheduler.init_schedule_policy", "builds BrosSchedulePolicy"),
    Seam(_SCHEDULER, "Scheduler.init_running_status", "builds the waiting queue"),
    Seam(_SCHEDULER, "Scheduler.init_invariant_checker", "lets parked rows be counted"),
    Seam(_SCHEDULER, "Scheduler.get_prefill_adder_class", "hands in BrosPrefillAdder"),
    Seam(_SCHEDULER, "Scheduler.get_next_batch_to_run", "a pass", ("running_batch", "last_batch")),
    Seam(
        _SCHEDULER,
        "Scheduler.get_new_batch_prefill",
        "shows the pass a window of the queue",
        ("running_batch",),
    ),
    Seam(_SCHEDULER, "Scheduler._should_defer_prefill", "plans the step", ("running_batch",)),
    Seam(_SCHEDULER, "Scheduler.update_running_batch", "makes room before a decode step", ("batch",)),
    Seam(_SCHEDULER, "Scheduler.run_batch", "notes a step's shape", ("batch",)),
    Seam(_SCHEDULER, "Scheduler.process_batch_result", "measures a step", ("batch", "result")),
    Seam(_SCHEDULER, "Scheduler.process_input_requests", "takes the agreed clock out", ("recv_reqs",)),
    Seam(_SCHEDULER, "Scheduler.ingest_requests", "receives as late as the running step allows"),
    Seam(_SCHEDULER, "Scheduler._poll_timeout_aborts", "puts rank 0's clock on the broadcast"),
    Seam(_SCHEDULER, "Scheduler._create_generation_req", "attaches class and targets", ("recv_req",)),
    Seam(
        _SCHEDULER, "Scheduler._add_request_to_queue", "requeues preempted requests", ("req", "is_retracted")
    ),
    Seam(_SCHEDULER, "Scheduler._collect_inflight_batches", "lets aborts reach parked rows"),
    Seam(_SCHEDULER, "Scheduler.init_metrics_collector", "adds its metrics to `/metrics`"),
    Seam(_SCHEDULER, "Scheduler.set_internal_state", "takes over `/bros/config`", ("recv_req",)),
    Seam(_SCHEDULER, "Scheduler.get_internal_state", "answers `/bros/status`", ("recv_req",)),
    Seam(_SCHEDULER, "Scheduler._release_aborted_request", "counts aborted requests", ("req",)),
    Seam(_SCHEDULER, "Scheduler.send_abort_output", "ends requests aborted as they lost their seat"),
    Seam(_SCHEDULER, "_make_abort_req", "ends requests aborted as they lost their seat", ("req",)),
    Seam(_SCHEDULER, "Scheduler.is_fully_idle", "counts parked rows"),
    Seam(_SCHEDULER, "Scheduler._reqs_finishing_inflight", "spares rows that end by themselves", ("batch",)),
    Seam(
        "sglang.srt.managers.scheduler_components.invariant_checker",
        "SchedulerInvariantChecker._requests_owning_rows",
        "counts parked rows in the memory check",
    ),
    Seam("sglang.srt.constants", "HEALTH_CHECK_RID_PREFIX", "keeps health checks out of the figures"),
    # Policy and admission.
    Seam("sglang.srt.managers.schedule_policy", "SchedulePolicy.calc_priority", "keeps the window's order"),
    Seam(
        "sglang.srt.managers.schedule_policy",
        "SchedulePolicy.shortest_prefill_chunk_limit",
        "limits the chunk in flight",
        ("chunked_req", "waiting_queue", "budget", "page_size"),
    ),
    Seam(
        "sglang.srt.managers.schedule_policy", "SchedulePolicy._validate_and_adjust_policy", "accepts `bros`"
    ),
    Seam("sglang.srt.managers.schedule_policy", "PrefillAdder.add_one_req", "admission by class", ("req",)),
    Seam(
        "sglang.srt.managers.schedule_policy",
        "PrefillAdder.preempt_to_schedule",
        "takes slots from BE",
        ("req",),
    ),
    Seam(
        "sglang.srt.managers.schedule_policy",
        "PrefillAdder._get_running_request_total_token_offset",
        "reserves nothing one by one",
        ("req",),
    ),
    Seam(
        "sglang.srt.managers.schedule_policy",
        "PrefillAdder._check_prefill_budget",
        "counts the prompt alone, and tokens instead of pages",
        ("req", "extend_input_len", "total_tokens", "chunk_limit"),
    ),
    Seam(
        "sglang.srt.managers.schedule_policy",
        "PrefillAdder._update_prefill_budget",
        "reserves prompts alone, and charges tokens instead of pages",
        ("prefix_len", "extend_input_len", "max_new_tokens"),
    ),
    Seam("sglang.srt.managers.schedule_policy", "AddReqResult", "admission verdicts"),
    Seam(
        f"{_MEMORY}.prefill_budget",
        "PrefillBudget.available_chunk_tokens",
        "a chunk in flight has its room already",
        ("chunk_limit",),
    ),
    # Requests and batches.
    Seam(_BATCH, "Req.reset_for_retract", "preemption"),
    Seam(_BATCH, "Req.next_output_finishes_by_length", "spares rows that end by themselves"),
    Seam(_BATCH, "ScheduleBatch.init_new", "parks rows", ("reqs",)),
    Seam(_BATCH, "ScheduleBatch.filter_batch", "parks and preempts rows", ("keep_indices",)),
    Seam(_BATCH, "ScheduleBatch.merge_batch", "takes parked rows back", ("other",)),
    Seam(_BATCH, "ScheduleBatch.check_decode_mem", "asks whether a decode step fits"),
    Seam(_BATCH, "ScheduleBatch._get_decode_retraction_order", "retracts best-effort first", ("reqs",)),
    Seam("sglang.srt.sampling.sampling_batch_info", "SamplingBatchInfo.from_schedule_batch", "parks rows"),
    Seam(_BATCH, "ScheduleBatch.prepare_for_extend", "tells the allocator whose tokens it hands out"),
    Seam(_BATCH, "ScheduleBatch.prepare_for_decode", "tells the allocator whose tokens it hands out"),
    # Memory.
    Seam(
        f"{_MEMORY}.allocator.token", "TokenToKVPoolAllocator", "replaced: two-ended allocator, page size 1"
    ),
    Seam(f"{_MEMORY}.allocator.paged", "PagedTokenToKVPoolAllocator", "replaced: two-ended allocator, pages"),
    Seam(f"{_MEMORY}.registry", "default_radix_cache_factory", "replaced: builds BrosRadixCache", ("ctx",)),
    Seam(f"{_MEMORY}.registry", "create_unified_radix_cache", "builds BrosRadixCache", ("cache_class",)),
    Seam(
        f"{_MEMORY}.unified_radix_cache",
        "UnifiedRadixCache.checkpoint_into_tree",
        "class of cached KV",
        ("up_to",),
    ),
    Seam(f"{_MEMORY}.unified_radix_cache", "UnifiedRadixCache.insert", "class of cached KV", ("params",)),
    Seam(f"{_MEMORY}.unified_radix_cache", "UnifiedRadixCache.touch_prefix", "cuts preempted KV into pieces"),
    Seam(f"{_MEMORY}.unified_radix_cache", "UnifiedRadixCache._evict", "the eviction clock"),
    Seam(
        f"{_MEMORY}.unified_radix_cache", "UnifiedRadixCache._evict_device_leaf", "class totals", ("node_id",)
    ),
    Seam(
        f"{_MEMORY}.unified_radix_cache",
        "UnifiedRadixCache.load_back",
        "placement of load-backs",
        ("node_id",),
    ),
    Seam(
        f"{_MEMORY}.unified_radix_cache",
        "UnifiedRadixCache.writing_check",
        "counts what copies to host no longer pin",
    ),
    Seam(
        f"{_MEMORY}.unified_radix_cache",
        "UnifiedRadixCache.write_through_threshold",
        "starts no copy to host for a victim",
    ),
    Seam(f"{_MEMORY}.common", "release_kv_cache", "preemption keeps KV in the tree", ("req", "checkpoint")),
    Seam(f"{_MEMORY}.common", "match_kv_cache", "estimates uncached tokens", ("req", "tree_cache")),
)


def loaded(module: str) -> bool:
    """Tell whether this process has imported a module already."""
    return module in sys.modules


def importable(package: str) -> bool:
    """Tell whether a package can be imported; one that is installed but broken cannot."""
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def installed_version() -> str:
    """Return the version of the installed SGLang, or "not installed"."""
    try:
        return version("sglang")
    except PackageNotFoundError:
        return "not installed"


def _resolve(seam: Seam) -> Any:
    target: Any = importlib.import_module(seam.module)
    for part in seam.name.split("."):
        target = getattr(target, part)
    return target


def missing_seams() -> list[str]:
    """Return one line for each seam that the installed SGLang lacks, or whose parameters changed."""
    lines = []
    for seam in SEAMS:
        if seam.needs and not importable(seam.needs):
            continue
        try:
            target = _resolve(seam)
        except (ImportError, AttributeError) as error:
            lines.append(f"{seam.path}: missing ({error}); bros uses it to: {seam.use}")
            continue
        if not seam.parameters:
            continue
        known = inspect.signature(target).parameters
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()):
            continue
        absent = [name for name in seam.parameters if name not in known]
        if absent:
            lines.append(f"{seam.path}: no parameter {', '.join(absent)}; bros uses it to: {seam.use}")
    return lines


def explain(problems: Iterable[str]) -> str:
    """Say what is missing from which SGLang, and which versions are supported."""
    listed = "\n".join(f"  - {line}" for line in problems)
    return (
        f"bros cannot run on this SGLang: version {installed_version()} is installed, "
        f"bros supports {SUPPORTED_RANGE} (tested with {TESTED_VERSION}).\n{listed}\n"
        f"Install a supported one (pip install 'sglang=={TESTED_VERSION}'), or start without --policy bros."
    )


def require_seams() -> None:
    """Stop the process (SystemExit, which SGLang's plugin loader does not swallow) if a seam is missing."""
    problems = missing_seams()
    if problems:
        raise SystemExit(explain(problems))


def require_hooks_live(targets: Iterable[str]) -> None:
    """Stop the process if SGLang did not apply a hook: it only logs that, and would serve without bros."""
    from sglang.srt.plugins.hook_registry import HookRegistry

    dead = [target for target in targets if target not in HookRegistry._patched]
    if dead:
        raise SystemExit(explain(f"{target}: the hook was not applied" for target in dead))
