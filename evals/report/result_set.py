"""Read what `bros eval replay`, `bros eval live` and `bros demo` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from bros_sglang.evals.metrics.output_folder import RUN_FILE
from bros_sglang.evals.metrics.write import read_requests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bros_sglang.evals.metrics.record import RequestRecord


class ReportError(ValueError):
    """A folder that cannot be reported on; the message says what to change."""


@dataclass(frozen=True)
class ResultSet:
    """One output folder: a result per policy, and each request where the folder has them."""

    name: str
    results: list[dict[str, Any]]
    records: dict[str, list[RequestRecord]]  # by policy, of its first round
    about: dict[str, Any]  # run.json

    @property
    def policies(self) -> list[str]:
        """The policies in the folder's order."""
        return [result["policy"] for result in self.results]

    def seconds(self, policy: str) -> float:
        """Return the length of a policy's measured part."""
        return float(next(r.get("seconds") or 0.0 for r in self.results if r["policy"] == policy))


def load_result_set(folder: Path) -> ResultSet:
    """Read a folder. Raises ReportError where it has no results or they cannot be read."""
    path = folder / "results.json"
    if not path.is_file():
        raise ReportError(f"{folder} has no results.json: give the --out folder of a run")
    try:
        results = orjson.loads(path.read_bytes())
        for result in results:
            _ = result["policy"], result["rt"]["ttft_ms"]["p50"], result["be"]["tokens_per_s"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ReportError(f"{path} is not a results.json of this project: {error!r}") from error
    if not results:
        raise ReportError(f"{path} holds no results")
    about: dict[str, Any] = {}
    if (folder / RUN_FILE).is_file():
        try:
            about = orjson.loads((folder / RUN_FILE).read_bytes())
        except orjson.JSONDecodeError as error:
            raise ReportError(f"{folder / RUN_FILE} is not JSON: {error}") from error
    return ResultSet(folder.name, results, _first_rounds(folder), about)


def _first_rounds(folder: Path) -> dict[str, list[RequestRecord]]:
    path = folder / "requests.parquet"
    if not path.is_file():
        return {}
    try:
        runs = read_requests(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from error
    first: dict[str, list[RequestRecord]] = {}
    for policy, number in sorted(runs, key=lambda key: key[1]):
        first.setdefault(policy, runs[policy, number])
    return first


def load_all(folders: Sequence[Path]) -> list[ResultSet]:
    """Read several folders; those of the same name are told apart by their parents."""
    sets = [load_result_set(folder) for folder in folders]
    names = [result_set.name for result_set in sets]
    return [
        ResultSet(f"{folder.resolve().parent.name}/{s.name}", s.results, s.records, s.about)
        if names.count(s.name) > 1
        else s
        for folder, s in zip(folders, sets, strict=True)
    ]
