"""The command line of the GPU measurement."""

from __future__ import annotations

from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bros_sglang.evals.gpu import environment
from bros_sglang.evals.gpu.archive import ArchiveError, pack, unpack
from bros_sglang.evals.gpu.budget import Budget
from bros_sglang.evals.gpu.run import GpuRun
from bros_sglang.evals.gpu.runner import run_cells
from bros_sglang.evals.gpu.scale import DRY, REAL
from bros_sglang.evals.gpu.stages import STAGES
from bros_sglang.evals.gpu.store import RESULTS_FILE, CellStore, StoreError, read_results
from bros_sglang.evals.live.server_process import terminate_as_interrupt

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def gpu(
    out: Annotated[Path, typer.Option(help="Output folder; a run in it goes on where it ended.")],
    stages: Annotated[str, typer.Option(help=f"Some of {','.join(STAGES)}.")] = ",".join(STAGES),
    *,
    only: Annotated[
        str | None, typer.Option(help="Only cells of these names, with commas: load/bros*,syncs/*.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="A tiny model on the CPU, short loads: tries the script.")
    ] = False,
    budget_s: Annotated[
        float | None, typer.Option(help="End by itself within so many seconds.", min=30.0)
    ] = None,
    payload: Annotated[
        Path | None, typer.Option(help="Folder with SGLang and what it needs, put before this host's own.")
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(help="Also keep the output folder in this .tgz; unpacked first where --out is empty."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Measured part of each load.", min=1.0)] = None,
    rates: Annotated[str | None, typer.Option(help="RT requests/s of the load stage, with commas.")] = None,
    tpot_ms: Annotated[float | None, typer.Option(help="RT target per further token.", min=0.001)] = None,
    pool_tokens: Annotated[int | None, typer.Option(help="KV pool.", min=1024)] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Try cells again that failed twice or were skipped.")
    ] = False,
) -> None:
    """Measure on this host's GPU, cell by cell; run it again to go on. See docs/gpu.md.

    Ends with status 0 where everything is measured, 3 where another command has to go on, 1 where cells
    failed.
    """
    del payload  # in force since before the imports (__main__.py)
    budget = Budget(budget_s)
    chosen = [name.strip() for name in stages.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in STAGES]
    if unknown or not chosen:
        _refuse(f"--stages: unknown {', '.join(unknown) or 'nothing'}; known are {', '.join(STAGES)}")
    scale = DRY if dry_run else REAL
    scale = replace(
        scale,
        seconds=seconds or scale.seconds,
        tpot_ms=tpot_ms or scale.tpot_ms,
        pool_tokens=pool_tokens or scale.pool_tokens,
        rates=_rates(rates) or scale.rates,
    )
    if archive is not None and archive.is_file() and not (out / RESULTS_FILE).is_file():
        try:
            unpack(archive, out)
        except ArchiveError as error:
            _refuse(str(error))
        typer.echo(f"going on with {archive}")
    store = CellStore(out)
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "scale": scale.name,
        "device": scale.device,
        "command": environment.command_line(),
        "settings": asdict(scale),
    }
    _check_same_run(out, about)
    run = GpuRun(out, scale, budget, store, typer.echo)

    def keep() -> None:
        store.write_results(about)
        if archive is not None:
            pack(out, archive)

    cells = [cell for name in STAGES if name in chosen for cell in STAGES[name](run)]
    if only is not None:
        patterns = [pattern.strip() for pattern in only.split(",")]
        cells = [cell for cell in cells if any(fnmatchcase(cell.key, pattern) for pattern in patterns)]
        if not cells:
            _refuse(f"--only {only!r}: no cell of the chosen stages has such a name")
    try:
        with terminate_as_interrupt():
            summary = run_cells(
                cells,
                store,
                budget,
                say=typer.echo,
                device_facts=environment.nvidia_smi,
                on_change=keep,
                retry=retry,
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what is done is in {out}, run the same command to go on", err=True)
        raise typer.Exit(130) from None
    finally:
        run.close()
        keep()
    typer.echo(f"{summary.line()}; results: {out / RESULTS_FILE}")
    if not summary.complete:
        typer.echo("run the same command again to go on")
        raise typer.Exit(3)
    if any(record.status == "failed" for record in store.all()):
        raise typer.Exit(1)


def _rates(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        found = tuple(sorted(float(part) for part in text.split(",") if part.strip()))
    except ValueError:
        found = ()
    if not found or found[0] <= 0:
        _refuse(f"--rates {text!r}: give requests per second with commas, such as 1.65,3.3,5")
    return found


def _check_same_run(out: Path, about: Mapping[str, Any]) -> None:
    """Refuse a folder that holds a run with other settings: its cells would be taken for this one's."""
    if not (out / RESULTS_FILE).is_file():
        return
    try:
        before, _ = read_results(out)
    except StoreError as error:
        _refuse(str(error))
    theirs, ours = before.get("settings"), _plain(about["settings"])
    if theirs != ours and isinstance(theirs, dict) and isinstance(ours, dict):
        other = [key for key in ours if theirs.get(key) != ours[key]]
        _refuse(f"{out} holds a run with other settings ({', '.join(other)}): give another --out")


def _plain(settings: object) -> object:
    """Return settings as JSON gives them back."""
    if not isinstance(settings, dict):
        return settings
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def _refuse(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)
