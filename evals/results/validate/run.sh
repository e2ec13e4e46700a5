#!/usr/bin/env bash
# The replay held against live servers on this machine: about eleven minutes on two cores with nothing else to do.
# Run from the repository root. Writes raw results here, the picture and the table into docs/.
set -uo pipefail
here=evals/results/validate
out=$(mktemp -d)/run
"${BROS:-.venv/bin/bros}" eval validate --out "$out" --policies fcfs,bros --rounds 3 --seconds 22 --profile-seconds 16
rc=$?
[ -f "$out/validation.json" ] || { echo "nothing to compare; logs are in $out" >&2; exit "$rc"; }
cp "$out"/validation.json "$out"/run.json "$out"/requests.parquet "$out"/step-time-*.json "$here/"
cp "$out/validation.png" docs/images/validation.png
"${PYTHON:-.venv/bin/python}" "$here/table.py" docs/replay.md
exit "$rc"
