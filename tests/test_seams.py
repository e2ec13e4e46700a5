from __future__ import annotations

import sys

import pytest

from bros_sglang import seams
from bros_sglang.seams import Seam


def test_the_installed_sglang_has_every_seam() -> None:
    assert seams.missing_seams() == []


@pytest.mark.parametrize(
    "seam",
    [
        Seam("sglang.srt.managers.scheduler", "Scheduler.no_such_method", "a test"),
        Seam("sglang.srt.no_such_module", "thing", "a test"),
        Seam(
            "sglang.srt.managers.schedule_policy",
            "PrefillAdder.add_one_req",
            "a test",
            ("no_such_parameter",),
        ),
    ],
)
def test_a_missing_seam_stops_with_versions_and_name(monkeypatch: pytest.MonkeyPatch, seam: Seam) -> None:
    monkeypatch.setattr(seams, "SEAMS", (seam,))
    with pytest.raises(SystemExit) as caught:
        seams.require_seams()
    message = str(caught.value)
    assert seam.path in message
    assert seams.installed_version() in message
    assert seams.SUPPORTED_RANGE in message


def test_a_hook_that_sglang_did_not_apply_stops() -> None:
    with pytest.raises(SystemExit, match=r"some\.target: the hook was not applied"):
        seams.require_hooks_live(["some.target"])


def test_seams_are_listed_once() -> None:
    paths = [seam.path for seam in seams.SEAMS]
    assert len(paths) == len(set(paths))


def test_what_sglang_goes_without_bros_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seam of an optional part is asked for where the part's package is there, and not else."""
    missing = Seam("sglang.srt.no_such_module", "thing", "a test", needs="no_such_package")
    monkeypatch.setattr(seams, "SEAMS", (missing,))
    assert seams.missing_seams() == []
    monkeypatch.setattr(seams, "SEAMS", (missing._replace(needs="json"),))
    assert len(seams.missing_seams()) == 1
    monkeypatch.setitem(sys.modules, seams.RESPONSES_NEEDS, None)
    assert not seams.importable(seams.RESPONSES_NEEDS)
