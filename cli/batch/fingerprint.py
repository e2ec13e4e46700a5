"""Notice that the input of a run is not what it was.

Files up to 64 MiB count by their content, larger ones by size, modification time and 64 samples spread over
them: reading 100 GB to begin would take minutes. Standard input counts by nothing but being it; ids decide.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict

from bros_sglang.cli.batch.problem import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bros_sglang.cli.batch.sources import Source

_WHOLE_BYTES: Final = 64 * 1024 * 1024
_SAMPLES: Final = 64
_SAMPLE_BYTES: Final = 64 * 1024


class SourceFingerprint(BaseModel):
    """One input file, or one folder of text files."""

    model_config = ConfigDict(frozen=True)

    label: str
    size_bytes: int
    digest: str


class InputFingerprint(BaseModel):
    """All input files."""

    model_config = ConfigDict(frozen=True)

    sources: list[SourceFingerprint]

    def difference(self, now: InputFingerprint) -> str | None:
        """Say what changed between this and `now` in one line; None where nothing did."""
        before = {source.label: source for source in self.sources}
        after = {source.label: source for source in now.sources}
        changed = [label for label in before if label in after and before[label] != after[label]]
        gone = [label for label in before if label not in after]
        new = [label for label in after if label not in before]
        parts = [
            f"{word}: {', '.join(labels[:5])}{' …' if len(labels) > 5 else ''}"
            for word, labels in (("changed", changed), ("gone", gone), ("new", new))
            if labels
        ]
        return "; ".join(parts) or None


def fingerprint(sources: Sequence[Source]) -> InputFingerprint:
    """Take the fingerprint of the input. Raises RefusedError where a file cannot be read."""
    try:
        return InputFingerprint(sources=[_of_source(source) for source in sources])
    except OSError as error:
        raise RefusedError(f"{error.filename}: {error.strerror}") from None


def _of_source(source: Source) -> SourceFingerprint:
    if source.path is None:
        return SourceFingerprint(label=source.label, size_bytes=0, digest="stdin")
    if source.is_folder:
        digest = blake2b(digest_size=16)
        for path in source.text_files():
            stat = path.stat()
            digest.update(f"{path.relative_to(source.path)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return SourceFingerprint(
            label=source.label, size_bytes=source.size_bytes, digest=f"tree:{digest.hexdigest()}"
        )
    return SourceFingerprint(label=source.label, size_bytes=source.size_bytes, digest=_of_file(source.path))


def _of_file(path: Path) -> str:
    digest = blake2b(digest_size=16)
    stat = path.stat()
    with path.open("rb") as file:
        if stat.st_size <= _WHOLE_BYTES:
            while chunk := file.read(1024 * 1024):
                digest.update(chunk)
            return f"whole:{digest.hexdigest()}"
        for number in range(_SAMPLES):
            file.seek(number * (stat.st_size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    digest.update(f"{stat.st_size}\0{stat.st_mtime_ns}".encode())
    return f"sampled:{digest.hexdigest()}"
