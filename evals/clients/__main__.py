"""Start a bros server on the CPU, let each client complete its runs, and check which classes were served.

python -m bros_sglang.evals.clients --out evals/results/clients      (or: make clients)
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx

from bros_sglang.evals.clients.catalogue import CLIENTS, THIS_PYTHON, Client, ClientRun, Target
from bros_sglang.evals.live.errors import LiveError
from bros_sglang.evals.live.server_process import ServerProcess, terminate_as_interrupt
from bros_sglang.evals.live.sglang_command import TINY_ENV, tiny_server_command
from bros_sglang.status import BrosStatus

_MODEL: Final = "tiny"
_TIMEOUT_S: Final = 600.0
_SETTLE_S: Final = 30.0


def main() -> None:
    """Run every client, or those named; exit 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [client.name for client in CLIENTS]
    parser.add_argument("--out", type=Path, help="folder for results.json and README.md")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--venvs", type=Path, default=Path(".clients"), help="environments of the clients")
    values = parser.parse_args()
    chosen = [client for client in CLIENTS if client.name in values.only]
    try:
        with terminate_as_interrupt(), tempfile.TemporaryDirectory(prefix="bros-clients-") as scratch:
            results = _all(chosen, Path(scratch), values.venvs.resolve())
    except LiveError as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("interrupted; the server is stopped, nothing was written") from None
    if values.out is not None:
        values.out.mkdir(parents=True, exist_ok=True)
        (values.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        (values.out / "README.md").write_text(_page(results), encoding="utf-8")
    raise SystemExit(0 if all(result["ok"] for result in results) else 1)


def _all(clients: list[Client], scratch: Path, venvs: Path) -> list[dict[str, Any]]:
    pythons = {client.name: _environment(client, venvs) for client in clients}
    command = [*tiny_server_command(scratch), "--policy", "bros", "--served-model-name", _MODEL]
    _say("starting a server")
    results = []
    with ServerProcess(command, scratch / "server.log", env=dict(TINY_ENV)) as server:
        for client in clients:
            folder = scratch / client.name
            folder.mkdir()
            target = Target(server.url, _MODEL, scratch / "tiny-llama", folder, pythons[client.name])
            version = _version(target.python, client.package)
            for run in client.runs(target):
                result = {"client": client.name, "version": version, **_one(run, server.url)}
                shown = str(result["command"]).replace(str(scratch), "SCRATCH").replace(server.url, "URL")
                result["command"] = shown.replace(str(venvs), ".clients")
                results.append(result)
                _say(f"{client.name} {version}, {run.how}: {'completed' if result['ok'] else 'FAILED'}")
    return results


def _environment(client: Client, venvs: Path) -> Path:
    """Return the Python that has the client, after installing it where that is missing."""
    if client.requirement is None:
        return THIS_PYTHON
    folder = venvs / client.name
    python, ready = folder / "bin/python", folder / ".ready"
    if ready.is_file() and ready.read_text(encoding="utf-8") == client.requirement:
        return python
    _say(f"installing {client.requirement} into {folder}")
    _install([sys.executable, "-m", "venv", str(folder)])
    if client.sees_ours:
        for theirs in folder.glob("lib/python*/site-packages"):
            line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
            (theirs / "ours.pth").write_text(line, encoding="utf-8")
    _install([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", client.requirement])
    ready.write_text(client.requirement, encoding="utf-8")
    return python


def _install(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 (our own command)
    if done.returncode != 0:
        raise LiveError(f"{shlex.join(argv)}:\n{done.stderr[-1000:]}")


def _version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    return done.stdout.strip()


def _served(url: str) -> dict[str, int]:
    answer = httpx.get(f"{url}/bros/status", timeout=30.0, trust_env=False)
    status = BrosStatus.model_validate_json(answer.content)
    return {"rt": status.rt.requests_total, "be": status.be.requests_total}


def _one(run: ClientRun, url: str) -> dict[str, Any]:
    """Run a client to its end; its class's requests must have been served, and none of the other class."""
    before, started_s = _served(url), time.monotonic()
    environment = {**os.environ, **TINY_ENV, "PYTHONUNBUFFERED": "1", **dict(run.env)}
    output, code = "", -1
    try:
        done = subprocess.run(  # noqa: S603 (our own command)
            run.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env=environment,
            check=False,
        )
        output, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired:
        output = f"not done after {_TIMEOUT_S:.0f} s"
    wanted = {"rt": run.rt, "be": run.be}
    seen = _settled(url, before, wanted)
    ok = code == 0 and all(
        seen[name] >= count if count else seen[name] == 0 for name, count in wanted.items()
    )
    if not ok:
        _say(output[-3000:])
    return {
        "how": run.how,
        "command": shlex.join(run.argv),
        "exit_code": code,
        "seconds": round(time.monotonic() - started_s, 1),
        "asked": wanted,
        "served": seen,
        "ok": ok,
    }


def _settled(url: str, before: dict[str, int], wanted: dict[str, int]) -> dict[str, int]:
    """Return what was served since; the last answers may reach the client before the books."""
    end_s = time.monotonic() + _SETTLE_S
    while True:
        now = _served(url)
        seen = {name: now[name] - before[name] for name in now}
        if all(seen[name] >= wanted[name] for name in wanted) or time.monotonic() > end_s:
            return seen
        time.sleep(0.5)


_HEAD: Final = """\
# Clients that others wrote

Made by `make clients`: each against one live bros server with the tiny model on the CPU. What was served is
the server's own count (`/bros/status`). The commands are in `results.json`. Speed was not measured.

| client | the class is set by | RT served | BE served | |
| --- | --- | --- | --- | --- |
"""


def _page(results: list[dict[str, Any]]) -> str:
    rows = []
    for r in results:
        counts = " | ".join(f"{r['served'][name]} of {r['asked'][name]}" for name in ("rt", "be"))
        end = "completed" if r["ok"] else "failed"
        rows.append(f"| `{r['client']}` {r['version']} | {r['how']} | {counts} | {end} |")
    return _HEAD + "\n".join(rows) + "\n"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
