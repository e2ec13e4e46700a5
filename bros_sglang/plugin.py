"""The plugin that SGLang loads in each of its processes (entry point group `sglang.srt.plugins`).

Loading it changes nothing but the command line: one more policy to choose, and flags for it. Everything else
is hooked only where the server arguments choose the policy: in the main process when the arguments are
resolved, in a scheduler process just before its Scheduler is built.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from bros_sglang import launch_args, refusals, seams
from bros_sglang._version import __version__

logger = logging.getLogger(__name__)

_SERVER_ARGS: Final = "sglang.srt.server_args.ServerArgs"
_SCHEDULER_MODULE: Final = "sglang.srt.managers.scheduler"
_ALLOCATORS: Final = "sglang.srt.mem_cache.allocator"
_BATCH: Final = "sglang.srt.managers.schedule_batch.ScheduleBatch"
_HTTP_SERVER: Final = "sglang.srt.entrypoints.http_server"
_SERVING: Final = "sglang.srt.entrypoints.openai"
_TIME_STATS: Final = "sglang.srt.observability.req_time_stats.APIServerReqTimeStats"
_TOKENIZER_MANAGER: Final = "sglang.srt.managers.tokenizer_manager.TokenizerManager"


def _after_add_cli_args(result: Any, parser: Any) -> Any:
    launch_args.add_arguments(parser)
    return result


def _around_from_cli_args(original: Callable[..., Any], cls: Any, args: Any) -> Any:
    settings = launch_args.from_namespace(args)
    server_args = original(cls, args)
    if settings is not None:
        launch_args.attach_settings(server_args, settings)
    return server_args


def _before_resolve_once(server_args: Any) -> None:
    if launch_args.is_bros(server_args) and not getattr(server_args, "_resolution_finished", False):
        arm_main(server_args)


def _after_configure_scheduler_process(result: Any, server_args: Any, *_args: Any, **_kwargs: Any) -> Any:
    if launch_args.is_bros(server_args):
        arm_scheduler(server_args)
    return result


def register() -> None:
    """Register the hooks that every process needs; called by SGLang's `load_plugins`."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(f"{_SERVER_ARGS}.add_cli_args", _after_add_cli_args, HookType.AFTER)
    HookRegistry.register(f"{_SERVER_ARGS}.from_cli_args", _around_from_cli_args, HookType.AROUND)
    HookRegistry.register(f"{_SERVER_ARGS}.resolve_once", _before_resolve_once, HookType.BEFORE)
    if seams.loaded(_SCHEDULER_MODULE):
        # Importing it here would cost every process the scheduler's imports; a scheduler process has it.
        HookRegistry.register(
            f"{_SCHEDULER_MODULE}.configure_scheduler_process",
            _after_configure_scheduler_process,
            HookType.AFTER,
        )


def _apply(hooks: dict[str, tuple[Callable[..., Any], str]]) -> None:
    """Register the hooks, apply them and check that each is live."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookSource, HookType

    for target, (hook, kind) in hooks.items():
        if target not in HookRegistry._patched:
            HookRegistry.register(target, hook, HookType[kind], source=HookSource("bros", "bros-sglang"))
    HookRegistry.apply_hooks()
    seams.require_hooks_live(hooks)


def arm_main(server_args: Any) -> None:
    """Prepare the main process: refuse what is unsupported, set what bros needs, check tags at the door.

    Called before SGLang resolves the arguments. Raises SystemExit with the reason.
    """
    refused = refusals.refused_features(server_args)
    if refused:
        raise SystemExit("error: " + "\nerror: ".join(refused))
    seams.require_seams()
    settings = launch_args.settings_of(server_args)
    launch_args.attach_settings(server_args, settings)
    server_args.enable_mixed_chunk = settings.mixed_chunk

    from bros_sglang import arrival_times, door

    _apply(
        {
            f"{_TOKENIZER_MANAGER}._create_tokenized_object": (door.around_create_tokenized_object, "AROUND"),
            f"{_TIME_STATS}.__getstate__": (arrival_times.after_getstate, "AFTER"),
            f"{_TOKENIZER_MANAGER}.generate_request": (door.around_generate_request, "AROUND"),
            f"{_TOKENIZER_MANAGER}.__init__": (_after_tokenizer_manager_init, "AFTER"),
        }
    )


def _after_tokenizer_manager_init(_result: None, manager: Any, *_args: Any, **_kwargs: Any) -> None:
    if seams.loaded(_HTTP_SERVER) and launch_args.is_bros(manager.server_args):
        arm_http_server(manager)


def arm_http_server(manager: Any) -> None:
    """Prepare the HTTP server: tags on the OpenAI routes, keys, limits, and bros's own routes.

    Called when the tokenizer manager is built in a process that serves HTTP; an offline engine does not.
    """
    from bros_sglang import api_keys, config_route, door, status_route

    hooks: dict[str, tuple[Callable[..., Any], str]] = {
        f"{_SERVING}.serving_base.OpenAIServingBase.handle_request": (door.around_handle_request, "AROUND"),
        "sglang.srt.utils.auth.decide_request_auth": (api_keys.letting_in(manager), "AROUND"),
    }
    if seams.importable(seams.RESPONSES_NEEDS):  # without it SGLang serves without `/v1/responses`
        responses = f"{_SERVING}.serving_responses.OpenAIServingResponses"
        hooks[f"{responses}.create_responses"] = (door.around_create_responses, "AROUND")
        hooks[f"{responses}._known_model_names"] = (door.after_known_model_names, "AFTER")
    _apply(hooks)
    door.open_door(manager)
    status_route.add_route(manager)
    config_route.add_route(manager)


def arm_scheduler(server_args: Any) -> None:
    """Prepare a scheduler process: check every seam, then replace the Scheduler class.

    Called after the server arguments are published and before the Scheduler is built
    (`sglang/srt/managers/scheduler.py:run_scheduler_process`). Raises SystemExit with the reason.
    """
    seams.require_seams()

    from bros_sglang import arrival_times
    from bros_sglang.memory import radix_cache
    from bros_sglang.memory.allocator import BidirectionalTokenToKVPoolAllocator
    from bros_sglang.memory.paged_allocator import BidirectionalPagedTokenToKVPoolAllocator
    from bros_sglang.scheduler import placement, retraction
    from bros_sglang.scheduler.scheduler import BrosScheduler

    _apply(
        {
            f"{_SCHEDULER_MODULE}.Scheduler": (BrosScheduler, "REPLACE"),
            f"{_ALLOCATORS}.token.TokenToKVPoolAllocator": (BidirectionalTokenToKVPoolAllocator, "REPLACE"),
            f"{_ALLOCATORS}.paged.PagedTokenToKVPoolAllocator": (
                BidirectionalPagedTokenToKVPoolAllocator,
                "REPLACE",
            ),
            "sglang.srt.mem_cache.registry.default_radix_cache_factory": (
                radix_cache.build_radix_cache,
                "REPLACE",
            ),
            f"{_TIME_STATS}.__getstate__": (arrival_times.after_getstate, "AFTER"),
            f"{_BATCH}.prepare_for_extend": (placement.around_prepare_for_extend, "AROUND"),
            f"{_BATCH}.prepare_for_decode": (placement.around_prepare_for_decode, "AROUND"),
            f"{_BATCH}._get_decode_retraction_order": (retraction.around_decode_retraction_order, "AROUND"),
        }
    )
    settings = launch_args.settings_of(server_args)
    logger.info(
        "bros-sglang %s is on: targets TTFT %g ms, TPOT %g ms; untagged requests are %s",
        __version__,
        settings.ttft_ms,
        settings.tpot_ms,
        settings.default_class.value,
    )
