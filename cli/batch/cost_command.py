"""`bros batch cost`: tokens by the model's tokenizer, time at a measured rate."""

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import orjson
import typer
import uvloop

from bros_sglang.cli.batch.corpus import Corpus
from bros_sglang.cli.batch.cost import Estimate, estimate, load_tokenizer
from bros_sglang.cli.batch.exits import clear_errors
from bros_sglang.cli.batch.http_backend import HttpBackend
from bros_sglang.cli.batch.id_index import IdIndex
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
)
from bros_sglang.cli.batch.prefix_order import PrefixOrder
from bros_sglang.cli.batch.preparation import make_builder, prepare
from bros_sglang.cli.batch.problem import RefusedError
from bros_sglang.cli.batch.progress import QuietDisplay, duration
from bros_sglang.cli.batch.request import CHAT_URL, COMPLETIONS_URL, BatchRequest
from bros_sglang.cli.batch.run_folder import RunFolder
from bros_sglang.cli.batch.run_record import RunRecord, read_record
from bros_sglang.cli.batch.session import work
from bros_sglang.cli.batch.settings import RunSettings
from bros_sglang.cli.batch.sources import expand


@dataclass(frozen=True, slots=True)
class Rate:
    """A measured speed."""

    tokens_per_s: float  # prompt and completion together
    answer_tokens: float | None  # mean length of an answer; None: unknown
    source: str


def cost(
    inputs: Inputs,
    *,
    tokenizer: Annotated[str, typer.Option(help="Model or folder whose tokenizer counts.")],
    prompt: Prompt = None,
    system: System = None,
    max_tokens: MaxTokens = None,
    param: Params = None,
    completions: Completions = False,
    model_name: ModelName = None,
    id_field: IdField = None,
    input_format: InputFormat = None,
    sample: Annotated[int | None, typer.Option(help="Count this many and extrapolate.", min=1)] = None,
    rate: Annotated[float | None, typer.Option(help="Tokens/s, prompt and answer together.", min=0)] = None,
    like: Annotated[Path | None, typer.Option(help="Take the rate of this earlier run.")] = None,
    probe: Annotated[str | None, typer.Option(help="Measure it: send 64 requests to this server.")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Key for --probe.")] = None,
    gpu_hour_price: Annotated[float | None, typer.Option(help="Price of the server's hour.", min=0)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many tokens INPUT is, and how long it takes at a rate given, remembered or measured."""
    with clear_errors():
        if sum(option is not None for option in (rate, like, probe)) > 1:
            raise RefusedError("--rate, --like and --probe: choose one")
        settings = RunSettings(
            inputs=inputs,
            input_format=input_format,
            prompt=prompt,
            system=system,
            url=COMPLETIONS_URL if completions else CHAT_URL,
            parameters=body_parameters(max_tokens, param),
            model_name=model_name,
            id_field=id_field,
        )
        sources = expand(inputs, input_format)
        corpus = Corpus(sources, make_builder(settings, sources, model="any"))
        corpus.check_columns()
        order = PrefixOrder(settings.window)
        found, kept = estimate(order.windows(corpus.read(IdIndex())), load_tokenizer(tokenizer), sample)
        found = replace(found, shared_share=order.shared_after)
        speed = _rate(rate, like, probe, kept[:64], api_key, model_name)
        if json:
            typer.echo(orjson.dumps(_json(found, speed, gpu_hour_price)).decode())
            return
        for line in _lines(found, speed, gpu_hour_price):
            typer.echo(line)


def seconds_for(found: Estimate, speed: Rate) -> float | None:
    """Return how long the corpus takes; None where the length of answers is unknown."""
    answers: float | None = found.output_limit_tokens
    if speed.answer_tokens is not None:
        answers = speed.answer_tokens * found.requests
    if answers is None or speed.tokens_per_s <= 0:
        return None
    return (found.prompt_tokens + answers) / speed.tokens_per_s


def _rate(
    rate: float | None,
    like: Path | None,
    probe: str | None,
    sample: list[BatchRequest],
    api_key: str | None,
    model_name: str | None,
) -> Rate | None:
    if rate is not None:
        return Rate(rate, None, "as given")
    if like is not None:
        record = read_record(like / "run.json")
        if record is None:
            raise RefusedError(f"--like {like}: no run.json there")
        return _rate_of(record, f"measured by {like}")
    if probe is not None:
        return _probe(probe, sample, api_key, model_name)
    return None


def _rate_of(record: RunRecord, source: str) -> Rate:
    sessions = [session for session in record.sessions if session.seconds > 0]
    seconds = sum(session.seconds for session in sessions)
    tokens = sum(session.prompt_tokens + session.completion_tokens for session in sessions)
    if not seconds or not tokens:
        raise RefusedError(f"the run {source} has no answers with token counts")
    answer = record.tokens.completion / max(1, record.counts.ok)
    return Rate(tokens / seconds, answer, source)


def _probe(url: str, sample: list[BatchRequest], api_key: str | None, model_name: str | None) -> Rate:
    """Send a sample and measure; a small one overlaps little, so the rate is rather low than high."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder, "sample.jsonl")
        with lines.open("wb") as file:
            for request in sample:
                body = orjson.loads(request.payload)
                if body.get("model") == "any":
                    del body["model"]
                line = {"custom_id": request.custom_id, "method": "POST", "url": request.url, "body": body}
                file.write(orjson.dumps(line) + b"\n")
        settings = RunSettings(inputs=[str(lines)], endpoints=[url], model_name=model_name, give_up_s=30.0)
        prepared = prepare(RunFolder(Path(folder, "results")), settings)
        backend = HttpBackend(url, api_key=api_key, timeout_s=settings.timeout_s)
        outcome = uvloop.run(work(prepared, [backend], QuietDisplay()))
        if not outcome.record.counts.ok:
            raise RefusedError(f"--probe {url}: no request was answered ({outcome.reason or 'all failed'})")
        return _rate_of(outcome.record, f"measured now on {len(sample)} requests at {url}")


def _json(found: Estimate, speed: Rate | None, price: float | None) -> dict[str, object]:
    result: dict[str, object] = {**asdict(found), "exact": found.is_exact}
    if speed is not None:
        seconds = seconds_for(found, speed)
        result |= {"rate": asdict(speed), "seconds": seconds}
        if seconds is not None and price is not None:
            result["price"] = seconds / 3600 * price
    return result


def _lines(found: Estimate, speed: Rate | None, price: float | None) -> list[str]:
    about = "" if found.is_exact else "about "
    lines = [f"{found.requests:,} requests · {found.bad_lines:,} bad lines"]
    lines.append(f"prompts: {about}{found.prompt_tokens:,} tokens")
    if not found.is_exact:
        lines[-1] += f" (counted {found.counted:,})"
    if found.output_limit_tokens is None:
        lines.append("answers: some requests set no max_tokens")
    else:
        lines.append(f"answers: at most {found.output_limit_tokens:,} tokens by their max_tokens")
    if found.shared_share:
        lines.append(f"shared:  {found.shared_share:.0%} of prompt bytes repeat the request sent before")
    if speed is None:
        lines.append("time:    give --rate TOKENS_PER_S, --like DIR of an earlier run, or --probe URL")
        return lines
    seconds = seconds_for(found, speed)
    if seconds is None:
        lines.append("time:    unknown without max_tokens; --like DIR or --probe URL measure answers, too")
        return lines
    answers = f", answers of {speed.answer_tokens:,.0f} tokens" if speed.answer_tokens is not None else ""
    lines.append(
        f"time:    {duration(seconds)} at {speed.tokens_per_s:,.0f} tokens/s ({speed.source}{answers})"
    )
    if price is not None:
        lines.append(f"price:   {seconds / 3600 * price:,.2f}")
    return lines
