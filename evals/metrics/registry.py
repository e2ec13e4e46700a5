"""The metrics by where they stand in `results.json`.

A metric registers itself; adding one edits no other file.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

import bros_sglang.evals.metrics as package

if TYPE_CHECKING:
    from collections.abc import Callable

    from bros_sglang.evals.metrics.run import Run

    Compute = Callable[[Run], Any]

_METRICS: dict[tuple[tuple[str, ...], str], Compute] = {}  # by place and function: two may share an object
FIRST_KEYS = ("policy", "rt", "be", "tokens", "preemptions", "passes", "wall_s")


def metric(*path: str) -> Callable[[Compute], Compute]:
    """Register a function whose value goes to `path` in a result; a dict is merged into what is there."""

    def register(compute: Compute) -> Compute:
        key = (path, compute.__name__)
        if key in _METRICS:
            raise ValueError(f"two metrics {compute.__name__} for {'.'.join(path)}")
        _METRICS[key] = compute
        return compute

    return register


def _load_all() -> None:
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def _put(result: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        result = result.setdefault(key, {})
    last = path[-1]
    if isinstance(value, dict) and isinstance(result.get(last), dict):
        result[last].update(value)
    else:
        result[last] = value


def compute_result(run: Run) -> dict[str, Any]:
    """Compute every metric: one policy's object of `results.json`, as docs/results-schema.md describes it."""
    _load_all()
    result: dict[str, Any] = {"policy": run.facts.policy, "rt": {}, "be": {}, "tokens": {}}
    for path, name in sorted(_METRICS):
        _put(result, path, _METRICS[path, name](run))
    result.update(run.facts.extra)
    first = {key: result[key] for key in FIRST_KEYS}
    return first | {key: value for key, value in sorted(result.items()) if key not in first}
