"""`bros batch run` and `bros batch retry`."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
import uvloop

from bros_sglang.cli.batch.backend import Backend
from bros_sglang.cli.batch.earlier_run import forget_errors
from bros_sglang.cli.batch.exits import clear_errors
from bros_sglang.cli.batch.http_backend import HttpBackend
from bros_sglang.cli.batch.options import (
    Completions,
    IdField,
    InputFormat,
    Inputs,
    MaxTokens,
    ModelName,
    Params,
    Prompt,
    System,
    body_parameters,
    parse_duration,
    parse_values,
)
from bros_sglang.cli.batch.preparation import Prepared, prepare, refuse_bad_lines
from bros_sglang.cli.batch.problem import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    EXIT_STOPPED,
    RefusedError,
)
from bros_sglang.cli.batch.progress import make_display
from bros_sglang.cli.batch.request import CHAT_URL, COMPLETIONS_URL
from bros_sglang.cli.batch.run_folder import RunFolder
from bros_sglang.cli.batch.run_record import read_record
from bros_sglang.cli.batch.session import Outcome, work
from bros_sglang.cli.batch.settings import RunSettings, TagMode
from bros_sglang.cli.batch.summary import summary_lines

Folder = Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")]
ApiKey = Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Key for the endpoints.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Progress and result as JSON lines on standard output.")]
ContinueAnyway = Annotated[
    bool, typer.Option("--continue-anyway", help="Go on though input or settings changed; ids decide.")
]


def run(
    inputs: Inputs,
    output: Folder,
    *,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="OpenAI-compatible server or router (repeatable).")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Start this model in-process; no server.")] = None,
    engine_arg: Annotated[
        list[str] | None, typer.Option(help="key=value for sglang.Engine (with --model; repeatable).")
    ] = None,
    prompt: Prompt = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    param: Params = None,
    completions: Completions = False,
    model_name: ModelName = None,
    id_field: IdField = None,
    input_format: InputFormat = None,
    within: Annotated[str | None, typer.Option(help="Completion window: 24h, 90m, 2d.")] = None,
    tag: Annotated[TagMode, typer.Option(help="Tag requests best-effort; auto: on bros servers.")] = "auto",
    api_key: ApiKey = None,
    max_concurrency: Annotated[int, typer.Option(help="Most in flight per endpoint.", min=1)] = 256,
    concurrency: Annotated[
        int | None, typer.Option(help="Keep this many in flight, do not adapt.", min=1)
    ] = None,
    timeout: Annotated[str, typer.Option(help="Longest wait for one answer.")] = "1h",
    max_attempts: Annotated[int, typer.Option(help="Attempts before a request fails.", min=1)] = 5,
    give_up_after: Annotated[str, typer.Option(help="Stop when no server answers this long.")] = "10m",
    max_failures_in_a_row: Annotated[
        int, typer.Option(help="Stop when so many fail one after another; 0: never.", min=0)
    ] = 100,
    group_window: Annotated[
        int, typer.Option(help="Requests sorted at once to share prompt prefixes; 0: off.", min=0)
    ] = 4096,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Put output.jsonl in the input's order at the end.")
    ] = False,
    to: Annotated[Literal["parquet"] | None, typer.Option(help="Write output.parquet, too.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="One bad line: nothing is sent.")] = False,
    check_model: Annotated[
        bool, typer.Option(" /--no-model-check", help="Ask for models that the server does not list.")
    ] = True,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew; an earlier run is kept in previous-N.")
    ] = False,
    continue_anyway: ContinueAnyway = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Work through INPUT and write answers to a folder; the same command goes on after any end."""
    with clear_errors():
        if restart and continue_anyway:
            raise RefusedError("--restart and --continue-anyway: choose one")
        if bool(endpoint) == bool(model):
            raise RefusedError("say where it runs: --endpoint URL (one or more), or --model MODEL")
        if engine_arg and not model:
            raise RefusedError("--engine-arg: only with --model")
        settings = RunSettings(
            inputs=inputs,
            input_format=input_format,
            prompt=prompt,
            system=system,
            url=COMPLETIONS_URL if completions else CHAT_URL,
            parameters=body_parameters(max_tokens, param),
            # One model is served in-process: requests ask for it, whatever the corpus was written for.
            model_name=model if model and not model_name else model_name,
            id_field=id_field,
            endpoints=endpoint or [],
            model=model,
            engine_args=parse_values(engine_arg, "--engine-arg"),
            within_s=parse_duration(within, "--within") if within else None,
            tag=tag,
            strict=strict,
            max_concurrency=max_concurrency,
            fixed_concurrency=concurrency,
            window=group_window,
            timeout_s=parse_duration(timeout, "--timeout"),
            max_attempts=max_attempts,
            give_up_s=parse_duration(give_up_after, "--give-up-after"),
            max_failures_in_a_row=max_failures_in_a_row,
            ordered=ordered,
            to=to,
            check_model=check_model,
        )
        with closing(RunFolder(output)) as folder:
            prepared = prepare(folder, settings, restart=restart, continue_anyway=continue_anyway)
            _start(prepared, api_key=api_key, quiet=quiet, json=json)


def retry(
    folder: Annotated[Path, typer.Argument(help="Folder of an earlier run.")],
    *,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Where the input is now (- to pipe it again).")
    ] = None,
    endpoint: Annotated[list[str] | None, typer.Option(help="Other servers than then.")] = None,
    api_key: ApiKey = None,
    continue_anyway: ContinueAnyway = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Ask again for what is in errors.jsonl, with the settings of the run."""
    with clear_errors(), closing(RunFolder(folder)) as run_folder:
        record = read_record(run_folder.record)
        if record is None:
            raise RefusedError(f"{folder}: no run.json, so there was no run here")
        changes: dict[str, object] = {}
        if inputs:
            changes["inputs"] = inputs
        elif "-" in record.settings.inputs:
            raise RefusedError("the input was standard input: pipe it again with --input -")
        if endpoint:
            changes["endpoints"] = endpoint
        settings = record.settings.model_copy(update=changes)
        run_folder.lock(create=False)
        count = forget_errors(run_folder)
        if not count:
            typer.echo(f"{folder}: no errors to ask for again", err=True)
            return
        prepared = prepare(run_folder, settings, continue_anyway=continue_anyway)
        prepared.notes.insert(0, f"asking again for {count:,} of errors.jsonl")
        _start(prepared, api_key=api_key, quiet=quiet, json=json)


def _start(prepared: Prepared, *, api_key: str | None, quiet: bool, json: bool) -> None:
    settings = prepared.settings
    if settings.strict:
        refuse_bad_lines(prepared)
    outcome = uvloop.run(_work(prepared, api_key=api_key, quiet=quiet, json=json))
    if json:
        result = outcome.record.model_dump(mode="json", exclude={"settings", "input"})
        sys.stdout.write(orjson.dumps({"event": "ended", **result}).decode() + "\n")
    elif not quiet or outcome.state == "stopped":
        for line in summary_lines(outcome.record, prepared.folder.path):
            typer.echo(line, err=True)
    raise typer.Exit(_exit_code(outcome))


async def _work(prepared: Prepared, *, api_key: str | None, quiet: bool, json: bool) -> Outcome:
    display = make_display(quiet=quiet, json=json)
    try:
        for note in prepared.notes:
            display.note(note)
        if prepared.settings.model:
            display.note(f"loading {prepared.settings.model}")
        return await work(prepared, _backends(prepared.settings, api_key), display)
    finally:
        display.close()


def _backends(settings: RunSettings, api_key: str | None) -> list[Backend]:
    if settings.model is not None:
        from bros_sglang.cli.batch.offline_engine import EngineBackend

        return [EngineBackend(settings.model, settings.engine_args, timeout_s=settings.timeout_s)]
    endpoints = list(dict.fromkeys(settings.endpoints))
    return [HttpBackend(url, api_key=api_key, timeout_s=settings.timeout_s) for url in endpoints]


def _exit_code(outcome: Outcome) -> int:
    if outcome.state == "interrupted":
        return EXIT_INTERRUPTED
    if outcome.state == "stopped":
        return EXIT_STOPPED
    counts = outcome.record.counts
    return EXIT_SOME_FAILED if counts.failed or counts.rejected else EXIT_DONE
