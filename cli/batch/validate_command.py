"""`bros batch validate`: every bad line, before a GPU minute is spent."""

from typing import Annotated

import orjson
import typer

from bros_sglang.cli.batch.corpus import Corpus
from bros_sglang.cli.batch.exits import clear_errors
from bros_sglang.cli.batch.id_index import IdIndex
from bros_sglang.cli.batch.options import IdField, InputFormat, Inputs, Prompt, System
from bros_sglang.cli.batch.preparation import make_builder
from bros_sglang.cli.batch.problem import EXIT_SOME_FAILED, Rejected
from bros_sglang.cli.batch.settings import RunSettings
from bros_sglang.cli.batch.sources import expand


def validate(
    inputs: Inputs,
    *,
    prompt: Prompt = None,
    system: System = None,
    id_field: IdField = None,
    input_format: InputFormat = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Check the whole input: prints `file:line: reason` for every bad line; exit code 1 if there is one."""
    with clear_errors():
        settings = RunSettings(
            inputs=inputs, input_format=input_format, prompt=prompt, system=system, id_field=id_field
        )
        sources = expand(inputs, input_format)
        corpus = Corpus(sources, make_builder(settings, sources, model="any"))
        corpus.check_columns()
        index = IdIndex()
        good = bad = 0
        for item in corpus.read(index):
            if isinstance(item, Rejected):
                bad += 1
                if json:
                    record = {"source": item.source, "code": item.code, "reason": item.reason}
                    typer.echo(orjson.dumps({**record, "custom_id": item.custom_id}).decode())
                else:
                    typer.echo(item.message)
            else:
                good += 1
        if json:
            typer.echo(orjson.dumps({"requests": good, "bad_lines": bad}).decode())
        else:
            files = f"{len(sources)} input{'s' if len(sources) > 1 else ''}"
            typer.echo(f"{good:,} requests and {bad:,} bad lines in {files}", err=True)
        if bad:
            raise typer.Exit(EXIT_SOME_FAILED)
