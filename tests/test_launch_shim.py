from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bros_sglang import _launch_shim

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("argv", "after"),
    [
        (
            ["/v/bin/sglang", "launch_server", "--policy", "bros"],
            ["/v/bin/sglang", "serve", "--policy", "bros"],
        ),
        (["/v/bin/sglang", "serve"], ["/v/bin/sglang", "serve"]),
        (["/v/bin/other", "launch_server"], ["/v/bin/other", "launch_server"]),
        (["/v/bin/sglang", "generate", "launch_server"], ["/v/bin/sglang", "generate", "launch_server"]),
        (["/v/bin/sglang"], ["/v/bin/sglang"]),
    ],
)
def test_only_sglang_launch_server_is_translated(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], after: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    _launch_shim.translate()
    assert sys.argv == after


def test_other_programs_do_not_import_the_package() -> None:
    code = "import sys; print(any(name.startswith('bros_sglang') for name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, "launch_server"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_plain_wheel_carries_the_shim_and_the_linked_packages(tmp_path: Path) -> None:
    tree = tmp_path / "tree"  # a build leaves a folder behind that the next one would reuse
    left_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "results", "demo-results")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=left_out)
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, tree], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = next(archive.read(name).decode() for name in names if name.endswith("/RECORD"))
    assert "bros_sglang_launch.pth" in names
    assert "bros_sglang_launch.pth,sha256=" in record
    for module in (
        "policies/plan.py",
        "memory/allocator.py",
        "cli/app.py",
        "evals/tiny_model.py",
        "py.typed",
    ):
        assert f"bros_sglang/{module}" in names, module
