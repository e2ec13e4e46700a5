"""Workload specs: one line of text to a workload, e.g. `sharegpt:rate=8` or `paper:outstanding=128`.

    SPEC   = NAME[:KEY=VALUE,…]  |  FILE[:KEY=VALUE,…]
    NAME   = sharegpt | synthetic | arxiv | paper | azure | mooncake | uniform

A trace with its own times is played at them unless the spec gives other arrivals. spec_options.py says
what each key means; docs/workloads.md shows examples.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bros_sglang.evals.workloads import arrivals, synthetic
from bros_sglang.evals.workloads.build import ClosedLoopWorkload, Shape, draw_from, open_loop, traced
from bros_sglang.evals.workloads.errors import WorkloadError
from bros_sglang.evals.workloads.recognise import load_trace
from bros_sglang.evals.workloads.spec_options import KEYS, Options
from bros_sglang.evals.workloads.trace import TracedRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bros_sglang.evals.workloads.request import Workload
    from bros_sglang.request_class import RequestClass

    Lengths = Callable[[np.random.Generator], Iterator[TracedRequest]]

# Names of the public traces, looked for in $BROS_TRACES and beside the project.
TRACE_FILES = {
    "sharegpt": "sharegpt_8k_lengths.csv",
    "arxiv": "arxiv_summarization_lengths.csv",
    "azure": "azure_2023_conv.csv",
    "mooncake": "mooncake_conversation.jsonl",
}
NAMES = (*TRACE_FILES, "synthetic", "paper", "uniform")
# arXiv 2504.09590, section 6: the best-effort load. Its batches hold 128 requests at first.
PAPER_PROMPT, PAPER_OUTPUT, PAPER_OUTSTANDING = (512, 1024), (32, 128), 128


def split_spec(spec: str) -> tuple[str, Options]:
    """Split a spec into its name (or file) and its options. Raises WorkloadError for an unknown key."""
    if Path(spec).is_file():
        return spec, Options(spec, {})
    name, _, tail = spec.partition(":")
    if name not in NAMES:  # a file name may hold a colon itself: the options follow the last one
        name, _, tail = spec.rpartition(":") if "=" in spec.rpartition(":")[2] else (spec, "", "")
    values: dict[str, str] = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = item.partition("=")
        if not equals or key.strip() not in KEYS:
            raise WorkloadError(f"{spec!r}: unknown option {item!r}; known are {', '.join(KEYS)}")
        values[key.strip()] = value.strip()
    return name, Options(spec, values)


def trace_file(file_name: str) -> Path | None:
    """Find a public trace in $BROS_TRACES or ../shared/traces beside the project; None where it is absent."""
    folders = [os.environ.get("BROS_TRACES"), Path(__file__).resolve().parents[3] / "shared" / "traces"]
    for folder in folders:
        if folder and (path := Path(folder) / file_name).is_file():
            return path
    return None


def _as_traced(pairs: Iterator[tuple[int, int]]) -> Iterator[TracedRequest]:
    return (TracedRequest(None, prompt, output) for prompt, output in pairs)


def _drawn_from(table: list[TracedRequest], rng: np.random.Generator) -> Iterator[TracedRequest]:
    return draw_from(table, rng)


def _synthetic(rng: np.random.Generator) -> Iterator[TracedRequest]:
    return _as_traced(synthetic.sharegpt_like(rng))


@dataclass(frozen=True)
class _Uniform:
    prompt: tuple[int, int]
    output: tuple[int, int]

    def __call__(self, rng: np.random.Generator) -> Iterator[TracedRequest]:
        return _as_traced(synthetic.uniform(rng, self.prompt, self.output))


@dataclass(frozen=True)
class _Source:
    """Where lengths come from: a trace, or draws without end."""

    label: str  # for the workload's name: results say what they were made with
    draw: Lengths
    usual_limit: int  # max_new_tokens that its clients may be taken to have sent
    trace: list[TracedRequest] | None = None

    @property
    def has_times(self) -> bool:
        return self.trace is not None and self.trace[0].arrival_s is not None


def _source(name: str, options: Options) -> _Source:
    file = options.text("file")
    if file is None and name in ("paper", "uniform"):
        prompt = options.bounds("prompt", PAPER_PROMPT)
        output = options.bounds("output", PAPER_OUTPUT)
        label = f"U({prompt[0]},{prompt[1]})/U({output[0]},{output[1]})"
        return _Source(label, _Uniform(prompt, output), output[1])
    path = None if file is None and name == "synthetic" else Path(file) if file else _named_file(name)
    if path is None:  # ShareGPT without its file: the formula fitted to it
        return _Source("ShareGPT-like formula", _synthetic, synthetic.LONGEST_OUTPUT_TOKENS)
    if not path.is_file():
        raise WorkloadError(
            f"{options.spec!r}: {path} is neither a file nor the name of a workload ({', '.join(NAMES)})"
        )
    trace = load_trace(path)
    # Not the longest: one freak answer would make every admission reserve room that nobody uses.
    limit = int(np.quantile([request.output_tokens for request in trace], 0.99, method="higher"))
    return _Source(path.name, partial(_drawn_from, trace), limit, trace)


def _named_file(name: str) -> Path | None:
    if name not in TRACE_FILES:
        return Path(name)
    found = trace_file(TRACE_FILES[name])
    if found is None and name != "sharegpt":
        raise WorkloadError(
            f"the trace {TRACE_FILES[name]} was not found: set BROS_TRACES to its folder "
            f"or give {name}:file=PATH"
        )
    return found


def _limit(options: Options, scale: float, usual: int) -> int | None:
    raw = options.text("limit")
    if raw == "exact":
        return None
    return max(1, round(usual / scale)) if raw is None else options.whole("limit")


def _times(kind: str, options: Options, shape: Shape) -> Iterator[float]:
    rng = shape.rng("arrivals")
    if kind == "at-once":
        return arrivals.at_once()
    rate = options.number("rate")
    if rate is None:
        raise WorkloadError(
            f"{options.spec!r}: give rate=REQUESTS_PER_SECOND, outstanding=N or arrivals=at-once"
        )
    if kind == "uniform":
        return arrivals.uniform(rate)
    if kind == "burst":
        return arrivals.burst(rng, rate, options.whole("burst", 8) or 8)
    if kind == "waves":
        low = options.number("low", 0.0, zero=True) or 0.0
        duty = options.number("duty", 0.5) or 0.5
        if duty >= 1:
            raise WorkloadError(f"{options.spec!r}: duty={duty:g} must be below 1 ({KEYS['duty']})")
        return arrivals.waves(rng, rate, low, options.number("period", 60.0) or 60.0, duty)
    if kind == "poisson":
        return arrivals.poisson(rng, rate)
    raise WorkloadError(f"{options.spec!r}: arrivals={kind!r} is not one of {KEYS['arrivals']}")


def parse_workload(
    spec: str,
    request_class: RequestClass,
    *,
    seconds: float | None = None,
    speed: float = 1.0,
    seed: int = 0,
    ttft_ms: float | None = None,
    tpot_ms: float | None = None,
    exact_limit: bool = False,
) -> Workload:
    """Build the workload that a spec describes; the arguments are defaults that the spec's own keys override.

    `exact_limit` sends the true output length as max_new_tokens, as a load generator with `ignore_eos` must.
    Raises WorkloadError with what to change.
    """
    name, options = split_spec(spec)
    scale = options.number("scale", 1.0) or 1.0
    source = _source(name, options)
    shape = Shape(
        request_class=request_class,
        seed=seed if (own := options.whole("seed", zero=True)) is None else own,
        scale=scale,
        limit=None if exact_limit else _limit(options, scale, source.usual_limit),
        prefix_tokens=options.whole("prefix", 0, zero=True) or 0,
        prefixes=options.whole("prefixes", 1) or 1,
        max_context=options.whole("max_context"),
        ttft_ms=options.number("ttft_ms", ttft_ms),
        tpot_ms=options.number("tpot_ms", tpot_ms),
    )
    label = f"{spec} [{source.label}]"
    outstanding = options.whole("outstanding")
    if outstanding is None and name == "paper" and not {"rate", "arrivals"} & options.values.keys():
        outstanding = PAPER_OUTSTANDING
    if outstanding is not None:
        return ClosedLoopWorkload(label, shape, outstanding, source.draw, options.whole("n"))
    return _open_loop(label, source, shape, options, seconds, speed)


def _open_loop(
    label: str, source: _Source, shape: Shape, options: Options, seconds: float | None, speed: float
) -> Workload:
    horizon_s, count = options.number("seconds", seconds), options.whole("n")
    own_times = source.has_times and "rate" not in options.values
    kind = options.text("arrivals") or ("trace" if own_times else "poisson")
    if kind == "trace":
        if source.trace is None or not source.has_times:
            raise WorkloadError(f"{options.spec!r}: {source.label} has no arrival times of its own")
        return traced(
            label,
            shape,
            source.trace,
            speed=options.number("speed", speed) or speed,
            start_s=options.number("start", 0.0, zero=True) or 0.0,
            seconds=horizon_s,
            count=count,
        )
    times = _times(kind, options, shape)
    lengths = source.draw(shape.rng("lengths"))
    if kind == "at-once":
        horizon_s = None
        if count is None:
            if source.trace is None:
                raise WorkloadError(f"{options.spec!r}: a corpus drawn from {source.label} needs n=REQUESTS")
            lengths = iter(source.trace)
    elif horizon_s is None and count is None:
        raise WorkloadError(f"{options.spec!r}: give seconds=… or n=…")
    return open_loop(label, shape, times, lengths, seconds=horizon_s, count=count)
