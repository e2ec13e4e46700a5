"""Each user's page begins with something to copy and run: run it, as it stands, on a port that is free."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bros_sglang.evals.live.server_process import free_port

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(900)]

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What ends a page's servers, whatever happens, and waits until they are gone.
FRAME = """\
set -euo pipefail
trap 'jobs -p | xargs -r kill; wait' EXIT
{body}
echo ALL BLOCKS RAN
"""


def _blocks(page: str, count: int) -> str:
    found = BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))[:count]
    assert len(found) == count
    assert found[0][0] == "sh"  # the page begins with a command
    return "\n".join(
        text if kind == "sh" else f"python - <<'END_OF_BLOCK'\n{text}END_OF_BLOCK" for kind, text in found
    )


def _run(page: str, blocks: int, folder: Path) -> str:
    body = _blocks(page, blocks).replace("30000", str(free_port()))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    log = folder / "output.log"
    with log.open("wb") as output:
        bash = subprocess.Popen(
            ["bash", "-c", FRAME.format(body=body)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = bash.wait(800)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(bash.pid, signal.SIGKILL)
    text = log.read_text(errors="replace")
    assert code == 0, text[-4000:]
    assert "ALL BLOCKS RAN" in text
    return text


def test_chat(tmp_path: Path) -> None:
    text = _run("chat.md", 3, tmp_path)
    assert '"finish_reason"' in text  # the answer
    assert re.search(r"^flex$", text, re.MULTILINE)  # the tier of the title
    assert "KV:" in text  # bros top


def test_corpus(tmp_path: Path) -> None:
    text = _run("batch.md", 1, tmp_path)
    assert len((tmp_path / "results/output.jsonl").read_text().splitlines()) == 3
    assert "custom_id" in text


def test_cluster(tmp_path: Path) -> None:
    text = _run("cluster.md", 1, tmp_path)
    assert '"ttft_ms":300' in text.replace(" ", "")
    assert "sglang:bros_num_running_reqs" in text
    assert "bros can run here" in text
    assert (tmp_path / "my-monitoring/alerts.yml").is_file()


def test_policy(tmp_path: Path) -> None:
    assert "what limited" in _run("policy.md", 2, tmp_path)
    for name in ("as-it-is", "more-for-batch"):
        assert (tmp_path / "floor" / name / "report/index.html").is_file()
