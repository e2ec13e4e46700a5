"""The output folder as one file."""

from pathlib import Path

import pytest

from bros_sglang.evals.gpu.archive import ArchiveError, pack, unpack


def test_what_is_packed_comes_back_without_what_can_be_made_again(tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    (out / "cells" / "load").mkdir(parents=True)
    (out / "cells" / "load" / "bros.json").write_text("{}", encoding="utf-8")
    (out / "traces").mkdir()
    (out / "traces" / "a.trace.json.gz").write_bytes(b"x" * 100)
    archive = out / "run.tgz"  # in the folder itself
    pack(out, archive)
    pack(out, archive)
    unpack(archive, back)
    files = sorted(str(path.relative_to(back)) for path in back.rglob("*") if path.is_file())
    assert files == ["cells/load/bros.json"]


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    broken = tmp_path / "run.tgz"
    broken.write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(ArchiveError, match=r"run\.tgz: cannot be unpacked"):
        unpack(broken, tmp_path / "out")
