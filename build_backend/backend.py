"""Build backend: setuptools, plus one `.pth` file at the root of the wheel.

`sglang launch_server` is not a subcommand of SGLang's console script. The `.pth` line lets the interpreter
translate it (see `bros_sglang/_launch_shim.py`), and it has to sit beside the package in site-packages after
a plain *and* an editable install. No setuptools option puts a file there for both, so the finished wheel is
opened and the file is added.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from setuptools import build_meta as _setuptools
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

PTH_NAME = "bros_sglang_launch.pth"
PTH_TEXT = (Path(__file__).parent / PTH_NAME).read_text()


def _add_pth(wheel: Path) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(PTH_TEXT.encode()).digest()).rstrip(b"=").decode()
    line = f"{PTH_NAME},sha256={digest},{len(PTH_TEXT.encode())}\n"
    patched = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(patched, "w", zipfile.ZIP_DEFLATED) as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                target.writestr(PTH_NAME, PTH_TEXT)
                data = line.encode() + data
            target.writestr(item, data)
    patched.replace(wheel)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):  # noqa: D103 (PEP 517)
    name = _setuptools.build_wheel(wheel_directory, config_settings, metadata_directory)
    _add_pth(Path(wheel_directory) / name)
    return name


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):  # noqa: D103 (PEP 660)
    name = _setuptools.build_editable(wheel_directory, config_settings, metadata_directory)
    _add_pth(Path(wheel_directory) / name)
    return name
