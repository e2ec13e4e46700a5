"""An output folder as one file, for a host that keeps nothing: packed as the run goes, unpacked first."""

from __future__ import annotations

import tarfile
from pathlib import Path

# What can be measured again costs more to carry than it is worth.
LEFT_OUT = (".new", ".safetensors", ".trace.json.gz")


class ArchiveError(ValueError):
    """An archive that cannot be used; the message says why."""


def pack(out: Path, archive: Path) -> None:
    """Write everything in `out` but profiler traces and weights to `archive` (.tgz), whole or not at all."""
    staged = archive.with_name(f".{archive.name}.new")
    with tarfile.open(staged, "w:gz", compresslevel=6) as tar:
        for path in sorted(out.rglob("*")):
            if path.is_file() and not path.name.endswith(LEFT_OUT) and path.resolve() != archive.resolve():
                tar.add(path, arcname=str(path.relative_to(out)))
    staged.replace(archive)


def unpack(archive: Path, out: Path) -> None:
    """Unpack into `out`, which should hold no records yet. Raises ArchiveError for what is no archive."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(out, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ArchiveError(f"{archive}: cannot be unpacked ({error})") from error
