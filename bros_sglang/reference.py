"""Write `docs/settings.md` and `docs/metrics.md` from the code: `make reference`.

Settings come from the model's own JSON schema and from the flags that the command line really has; metrics
from the objects that a scheduler registers with `prometheus_client`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bros_sglang import launch_args
from bros_sglang.settings import CHANGEABLE, BrosSettings, flag_of, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SCHEDULER_LABELS: Final = ("model_name", "engine_type", "tp_rank", "pp_rank", "moe_ep_rank")

_BOUNDS: Final = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}

_SETTINGS_HEAD: Final = """\
# Settings

*Made from the code by `make reference`; do not edit.*

```toml
# bros.toml
[bros]
ttft_ms = 300
tpot_ms = 40
be_floor_share = 0.05
```

```sh
bros serve --model-path … --bros-config bros.toml --bros-ttft-ms 250   # a flag beats the file
```

A setting is a key of the TOML file (at top level or in `[bros]`) and a flag: `ttft_ms` is `--bros-ttft-ms`,
and one that is on or off has a `--no-bros-…` too. Where no `--bros-config` does, the variable `BROS_CONFIG`
names the file. An unknown key or a value out of range ends the start with its name and the reason.

**live**: may be changed while the server runs, by `/bros/config` ([operating.md](operating.md)).

| setting | default | values | live | |
| --- | --- | --- | --- | --- |
"""

_METRICS_HEAD: Final = """\
# Metrics

*Made from the code by `make reference`; do not edit.*

With `--enable-metrics` these stand in SGLang's `/metrics` beside its own. Every one carries the labels of
SGLang's scheduler metrics (`model_name`, `tp_rank`, …), or `model_name` alone where the HTTP process counts;
those marked with a class have `request_class` too: `rt` or `be`. A dashboard and alerts:
[monitoring.md](monitoring.md). What the figures mean, and some queries: [operating.md](operating.md).

| metric | kind | class | |
| --- | --- | --- | --- |
"""


class Metric(NamedTuple):
    """One metric as it is exported; a histogram's series are its name with `_bucket`, `_sum` and `_count`."""

    name: str
    kind: str  # counter, gauge, histogram
    labels: tuple[str, ...]
    text: str

    @property
    def series(self) -> tuple[str, ...]:
        """The names under which its samples are found."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


class _Silent:
    """A reporter of a scheduler that is not there: nothing asks it while metrics are only described."""


def metrics() -> list[Metric]:
    """Return every metric that a scheduler and the HTTP server register, in the order of registration."""
    from bros_sglang import door
    from bros_sglang.scheduler.books import Books
    from bros_sglang.scheduler.metrics import BrosMetrics

    books, labels = Books(load_settings().target_share), dict.fromkeys(_SCHEDULER_LABELS, "")
    return [
        *_registered(lambda: BrosMetrics(books, _Silent(), labels)),  # type: ignore[arg-type]
        *_registered(lambda: door._refusal_counter("")),
    ]


def _registered(make: Callable[[], object]) -> Iterator[Metric]:
    """Describe what `make` registers with prometheus_client, and take it out of there again."""
    from prometheus_client import REGISTRY

    known = set(REGISTRY._collector_to_names)
    make()
    made: list[Any] = [one for one in REGISTRY._collector_to_names if one not in known]
    for collector in made:
        REGISTRY.unregister(collector)
        (family,) = collector.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Metric(name, family.type, tuple(collector._labelnames), family.documentation)


def settings_page() -> str:
    """Return `docs/settings.md`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedule-policy")
    launch_args.add_arguments(parser)
    schema = BrosSettings.model_json_schema()
    rows = []
    for name, field in schema["properties"].items():
        text = field["description"]
        if flag_of(name) not in parser._option_string_actions:
            text += " In the file only."
        live = "yes" if name in CHANGEABLE else ""
        default = _shown(field.get("default"))
        rows.append(f"| `{name}` | {default} | {_values(field, schema)} | {live} | {_cell(text)} |")
    return _SETTINGS_HEAD + "\n".join(rows) + "\n"


def metrics_page() -> str:
    """Return `docs/metrics.md`."""
    rows = []
    for one in metrics():
        by_class = "yes" if "request_class" in one.labels else ""
        rows.append(f"| `{one.name}` | {one.kind} | {by_class} | {_cell(one.text)} |")
    return _METRICS_HEAD + "\n".join(rows) + "\n"


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _values(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Say in words what values a field takes."""
    if "$ref" in field:
        field = schema["$defs"][field["$ref"].rpartition("/")[2]]
    if "allOf" in field:
        return " and ".join(_values(part, schema) for part in field["allOf"])
    if "anyOf" in field:
        parts = [part for part in field["anyOf"] if part.get("type") != "null"]
        return " or ".join([*(_values(part, schema) for part in parts), "none"])
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    kind = field.get("type", "value")
    words = {"boolean": "on, off", "integer": "whole number", "string": "text", "object": "table"}
    if field.get("format") == "path":
        return "path"
    bounds = ", ".join(_bounds(field))
    return f"{words.get(kind, kind)} {bounds}".rstrip()


def _bounds(field: Mapping[str, Any]) -> Iterator[str]:
    for key, sign in _BOUNDS.items():
        if key in field:
            yield f"{sign} {field[key]:,}".removesuffix(".0")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES: Final = {"settings.md": settings_page, "metrics.md": metrics_page}


def main() -> None:
    """Write the pages into the folder given, `docs` by default."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    if not folder.is_dir():
        raise SystemExit(f"error: {folder}: no such folder; give the one to write {', '.join(PAGES)} to")
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
        sys.stdout.write(f"{folder / name}\n")


if __name__ == "__main__":
    main()
