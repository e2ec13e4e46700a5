"""From a run to a step-time file: `python -m bros_sglang.evals.gpu.preset DIR FILE`.

The file holds measured constants in place of a preset's; `bros eval replay --step-time FILE` reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bros_sglang.evals.gpu.figures import Results
from bros_sglang.evals.gpu.models import kv_bytes_per_token
from bros_sglang.evals.gpu.store import StoreError, read_results


class PresetError(ValueError):
    """A run that no preset can be made of; the message says which stage is missing."""


def preset_of(results: Results, policy: str = "bros") -> dict[str, Any]:
    """Return the fitted model of a run as a step-time file holds it, with the measured cost of load-back.

    Raises PresetError where the profile or the ceilings were not measured.
    """
    fit, ceilings = results.of("profile", policy), results.of("ceilings", "ceilings")
    host = results.of("host", "host")
    missing = [name for name, found in (("profile", fit), ("ceilings", ceilings)) if found is None]
    if fit is None or ceilings is None:
        raise PresetError(f"the run has no finished stage {' and '.join(missing)}: run it first")
    described = fit["model"]
    model = str(results.about["settings"]["model"])
    device = "unknown device" if host is None else host["device"]["name"]
    load_back_token_s = kv_bytes_per_token(model) / (ceilings["to_device_gb_per_s"] * 1e9)
    return {
        **described,
        "name": f"{model} on {device}, measured",
        "coefficients": {**described["coefficients"], "load_back_token_s": load_back_token_s},
        "provenance": {
            **described["provenance"],
            "made_by": "python -m bros_sglang.evals.gpu.preset",
            "policy": policy,
            "device": None if host is None else host["device"],
            "versions": None if host is None else host["versions"],
            "ceilings": ceilings,
            "load_back_token_s": "KV bytes of a token over the measured link, pinned host memory to device",
        },
    }


def main(
    run: Annotated[Path, typer.Argument(help="Output folder of a run.")],
    file: Annotated[Path, typer.Argument(help="Step-time file to write.")],
    policy: Annotated[str, typer.Option(help="Whose profile: fcfs or bros.")] = "bros",
) -> None:
    """Write the measured constants of a run as a step-time file."""
    try:
        about, records = read_results(run)
        described = preset_of(Results(about, records), policy)
        file.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    except (StoreError, PresetError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{file}: use it with bros eval replay --step-time {file}")


if __name__ == "__main__":
    typer.run(main)
