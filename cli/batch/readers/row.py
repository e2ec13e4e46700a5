"""What every reader yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Row:
    """One record of an input file, or the reason why there is none."""

    line: int  # from 1; a row's number in Parquet
    value: Mapping[str, Any] | None  # None: unreadable
    code: str = ""  # of the problem
    reason: str = ""
    label: str = ""  # names the record where "file:line" does not: a text file of a folder
