"""What a bare host needs, and what it says of itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from bros_sglang import __version__
from bros_sglang.evals.gpu import environment


def test_a_tree_that_nobody_installed_is_found_by_its_entry_points(tmp_path: Path) -> None:
    folder = environment.write_distribution(tmp_path / "distribution")
    code = (
        "from importlib.metadata import entry_points, version\n"
        "print(version('bros-sglang'))\n"
        "for group in ('sglang.srt.plugins', 'sglang.srt.platforms'):\n"
        "    for point in entry_points(group=group):\n"
        "        print(point.name, point.value)\n"
    )
    # -I -S: nothing installed here is seen.
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert told == [
        __version__,
        "bros bros_sglang.plugin:register",
        "bros-cpu bros_sglang.cpu_platform:activate",
    ]


def test_the_entry_points_are_those_of_the_installed_package() -> None:
    from importlib.metadata import entry_points

    groups = ("sglang.srt.plugins", "sglang.srt.platforms")
    installed = [point for group in groups for point in entry_points(group=group) if "bros" in point.name]
    assert {f"{point.name} = {point.value}" for point in installed} == {
        line for line in environment.ENTRY_POINTS.splitlines() if "=" in line
    }


def test_nothing_is_written_where_the_package_is_installed(tmp_path: Path) -> None:
    assert str(environment.source_root()) in environment.python_path(tmp_path).split(":")
    assert not (tmp_path / "distribution").exists()


def test_a_dry_run_sees_no_gpu(tmp_path: Path) -> None:
    assert environment.base_env(tmp_path, cpu=True)["CUDA_VISIBLE_DEVICES"] == ""
    assert "CUDA_VISIBLE_DEVICES" not in environment.base_env(tmp_path, cpu=False)


def test_what_forks_from_here_finds_the_plugin_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "installed", lambda: False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, value in environment.base_env(tmp_path, cpu=False).items():
        monkeypatch.setenv(name, value)  # what is set is put back
    environment.adopt({"PYTHONPATH": environment.python_path(tmp_path), "TOKENIZERS_PARALLELISM": "false"})
    assert str(tmp_path / "distribution") in sys.path
    assert str(tmp_path / "distribution") in environment.os.environ["PYTHONPATH"].split(":")


def test_nvidia_smi_is_read() -> None:
    line = "NVIDIA H200, 580.159.03, 143771 MiB, 4 MiB, 31, 76.53 W, 345 MHz, 3201 MHz, 0x0000000000000001\n"
    (gpu,) = environment.parse_smi(line)
    assert gpu["name"] == "NVIDIA H200"
    assert gpu["driver_version"] == "580.159.03"
    assert gpu["clocks.mem"] == "3201 MHz"


def test_a_host_without_nvidia_smi_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.shutil, "which", lambda _name: None)
    assert environment.nvidia_smi() == {"gpus": [], "note": "nvidia-smi is not installed"}


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.missing_modules() == []
    monkeypatch.setattr(environment, "NEEDED", ("json", "no_such_module_here"))
    assert environment.missing_modules() == ["no_such_module_here"]
    assert environment.versions()["sglang"] == "0.5.23"
