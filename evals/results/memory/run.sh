#!/usr/bin/env bash
# What evals/results/memory/README.md reports. Run from the repository root: run.sh [s1|s3|hits|churn|micro|placement|all]
# Traces: ../shared/traces or $BROS_TRACES. On one quiet core: s1 8 min, s3 5 min, hits 3 min, churn 40 min, micro 10 min.
set -uo pipefail
here=evals/results/memory
bros=${BROS:-.venv/bin/bros}
python=${PYTHON:-.venv/bin/python}
case ${1:-all} in
s1|all)
  load="--rt sharegpt:rate=3 --be paper:outstanding=128 --pool-tokens 98000"
  "$python" -m bros_sglang.evals.memory.pressure $load --seconds 60 --json $here/pressure-s1.json
  "$python" -m bros_sglang.evals.memory.pressure $load --seconds 120 --seeds 3 \
    --variants "all on;dropped;host cache;host cache, dropped" --json $here/pressure-s1-seeds.json ;;&
s3|all)
  "$python" -m bros_sglang.evals.memory.pressure --rt mooncake --speed 0.25 --be paper:outstanding=128,prefix=1000 \
    --step-time roofline --pool-tokens 143000 --ttft-ms 2000 --seconds 240 \
    --variants "all on;dropped;host cache;host cache, dropped;host cache, not pinned" --json $here/pressure-s3.json ;;&
hits|all)
  out=$(mktemp -d)/run
  # All lengths by 16 or 8, so that minutes of the trace (conversations take that long to come back) fit a short run.
  "$bros" eval replay --rt mooncake:scale=16 --speed 2 --be arxiv:outstanding=64,scale=8 --pool-tokens 60000 \
    --policies rt-alone,fcfs-mixed,priority-mixed,bros --seconds 120 --ttft-ms 400 --tpot-ms 50 \
    --step-time affine-llama3-8b-h200 --out "$out" &&
    cp "$out/results.json" $here/rt-hits.json ;;&
churn|all)
  "$bros" eval memory --steps 144000 --page-size 1 --json $here/churn-hour-page1.json ;;&
micro|all)
  "$bros" eval memory --micro --json $here/micro.json ;;&
placement|all)
  for page in 1 16; do
    "$bros" eval memory --steps 4000 --page-size $page --json $here/placement-page$page.json --picture $here/pool-page$page.png
  done ;;
esac
