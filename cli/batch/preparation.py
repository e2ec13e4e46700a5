"""Make a folder ready for one start: input checked, folder locked, earlier results mended and counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bros_sglang.cli.batch.corpus import Corpus
from bros_sglang.cli.batch.earlier_run import check_earlier_run, set_aside
from bros_sglang.cli.batch.fingerprint import fingerprint
from bros_sglang.cli.batch.id_index import IdIndex
from bros_sglang.cli.batch.problem import RefusedError, Rejected
from bros_sglang.cli.batch.recovery import Recovered, recover
from bros_sglang.cli.batch.request_builder import Builder, OpenAIBuilder, TemplateBuilder
from bros_sglang.cli.batch.run_record import RunRecord, Session, parse_timestamp, timestamp, versions
from bros_sglang.cli.batch.sources import Format, Source, expand
from bros_sglang.cli.batch.template import Template, TemplateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bros_sglang.cli.batch.fingerprint import InputFingerprint
    from bros_sglang.cli.batch.run_folder import RunFolder
    from bros_sglang.cli.batch.settings import RunSettings


@dataclass(slots=True)
class Prepared:
    """A folder ready to be worked on: locked, mended, counted."""

    folder: RunFolder
    settings: RunSettings
    sources: Sequence[Source]
    index: IdIndex
    record: RunRecord
    recovered: Recovered
    notes: list[str] = field(default_factory=list)


def prepare(
    folder: RunFolder, settings: RunSettings, *, restart: bool = False, continue_anyway: bool = False
) -> Prepared:
    """Check the input, take the folder and mend what an earlier start left. Raises RefusedError."""
    sources = expand(settings.inputs, Format(settings.input_format) if settings.input_format else None)
    builder = make_builder(settings, sources, model=settings.model_name or "")
    Corpus(sources, builder).check_columns()
    now = fingerprint(sources)
    folder.lock()
    notes = []
    if restart and (aside := set_aside(folder)):
        notes.append(f"the earlier run is in {aside}")
    record, same_input = check_earlier_run(folder, settings, now, continue_anyway=continue_anyway)
    index = IdIndex()
    try:
        recovered = recover(folder, index, keep_rejected=same_input)
    except OSError as error:
        raise RefusedError(f"{folder.path}: {error.strerror}") from None
    notes += _recovery_notes(recovered)
    started = record.first_started if record else timestamp()
    record = _next_record(record, settings, now, started)
    return Prepared(folder, settings, sources, index, record, recovered, notes)


def _recovery_notes(recovered: Recovered) -> list[str]:
    notes = []
    done = recovered.ok + recovered.failed + recovered.rejected
    if done:
        notes.append(f"going on: {done:,} done before ({recovered.failed + recovered.rejected:,} in errors)")
    if recovered.torn:
        notes.append(f"cut {recovered.torn} torn last line{'s' if recovered.torn > 1 else ''}")
    if recovered.dropped:
        notes.append(f"took out {recovered.dropped:,} damaged or doubled lines; their requests go again")
    return notes


def _next_record(
    earlier: RunRecord | None, settings: RunSettings, now: InputFingerprint, started: str
) -> RunRecord:
    deadline_at = earlier.deadline_at if earlier else None
    if settings.within_s is not None and (
        earlier is None or deadline_at is None or earlier.settings.within_s != settings.within_s
    ):
        deadline_at = timestamp(parse_timestamp(started) + settings.within_s)
    sessions = [*(earlier.sessions if earlier else []), Session(started=timestamp())]
    return RunRecord(
        settings=settings,
        input=now,
        versions=versions(),
        first_started=started,
        deadline_at=deadline_at if settings.within_s is not None else None,
        sessions=sessions,
    )


def make_builder(settings: RunSettings, sources: Sequence[Source], *, model: str) -> Builder:
    """Return what turns records into requests. `model` is asked for where nothing else names one.

    Raises RefusedError where the input needs a template and none was given, or it cannot be used.
    """
    if settings.prompt is None:
        for source in sources:
            if source.format is not Format.JSONL:
                example = '--prompt "Summarise: {text}"'
                raise RefusedError(f"{source.label} ({source.format}): needs a template, such as {example}")
        for name in ("system", "id_field"):
            if getattr(settings, name) is not None:
                raise RefusedError(
                    f"--{name.replace('_', '-')} needs --prompt: OpenAI Batch lines carry their own"
                )
        if settings.parameters:
            raise RefusedError("--max-tokens and --param need --prompt: OpenAI Batch lines carry their own")
        return OpenAIBuilder(model_name=settings.model_name, default_model=model or None)
    try:
        return TemplateBuilder(
            prompt=Template.parse(settings.prompt),
            system=Template.parse(settings.system, "--system") if settings.system else None,
            url=settings.url,
            model_name=settings.model_name or model,
            parameters=settings.parameters,
            id_field=settings.id_field,
        )
    except TemplateError as error:
        raise RefusedError(str(error)) from None


def refuse_bad_lines(prepared: Prepared) -> None:
    """Read the whole input first (`--strict`): one bad line and nothing is sent. Raises RefusedError."""
    if any(source.path is None for source in prepared.sources):
        return  # standard input passes once: the run stops at the first bad line instead
    builder = make_builder(prepared.settings, prepared.sources, model="any")
    index = IdIndex()
    bad = [item for item in Corpus(prepared.sources, builder).read(index) if isinstance(item, Rejected)][:20]
    index.close()
    if bad:
        raise RefusedError("\n".join([*(item.message for item in bad), "--strict: nothing was sent"]))
