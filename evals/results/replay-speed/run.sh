#!/usr/bin/env bash
# How long a replay takes: ten minutes of 20,154 RT requests on Llama-3-8B / H200 beside BE, four schedulers one after
# the other on one core. Run from the repository root; five to fifteen minutes. Traces: ../shared/traces or $BROS_TRACES.
set -euo pipefail
here=evals/results/replay-speed
out=$(mktemp -d)/run
OMP_NUM_THREADS=1 "${BROS:-.venv/bin/bros}" eval replay --out "$out" --rt sharegpt:rate=33.4,scale=4 \
  --be paper:outstanding=128 --policies rt-alone,fcfs,priority-mixed,bros --seconds 600
cp "$out/results.json" "$here/"
