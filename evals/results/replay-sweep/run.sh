#!/usr/bin/env bash
# Stock's chunk sizes swept on the paper's load at 60 % of RT's capacity: 40 variants of four stock policies beside
# RT alone. Run from the repository root; about ten minutes on one core. Traces: ../shared/traces or $BROS_TRACES.
set -euo pipefail
here=evals/results/replay-sweep
out=$(mktemp -d)/run
"${BROS:-.venv/bin/bros}" eval replay --sweep --out "$out" --policies rt-alone,fcfs,lpm,priority,priority-mixed \
  --step-time affine-llama3-8b-h200 --pool-tokens 120000 --max-running-requests 256 \
  --rt sharegpt:rate=3.3 --be paper:outstanding=128 --seconds 120 --ttft-ms 400 --tpot-ms 50
cp "$out/results.json" "$here/s1-rate3.3-tpot50.json"
