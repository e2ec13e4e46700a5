"""Several rounds of one policy to one result: the median of every number."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def median_result(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a result whose numbers are the medians over the rounds; `rounds` says how many there were.

    Each number is the median of its own values, so two numbers of the result need not come from the same
    round. A value that is no number is the first round's; `conserved` must hold in every round.
    """
    merged = _merge(rounds)
    if not isinstance(merged, dict):
        raise TypeError("a result is an object")
    return {**merged, "rounds": len(rounds)}


def _merge(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, dict):
        return {key: _merge([value[key] for value in values if key in value]) for key in first}
    if isinstance(first, bool):
        return all(values)
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if not numbers:
        return first
    middle = median(numbers)
    whole = all(isinstance(number, int) for number in numbers) and float(middle).is_integer()
    return int(middle) if whole else middle
