#!/usr/bin/env bash
# The replays behind docs/results.md. Run from the repository root; about 45 minutes on one core.
# Traces: ../shared/traces or $BROS_TRACES.
set -uo pipefail
here=evals/results/replay
bros=${BROS:-.venv/bin/bros}
replay() { # NAME then options of `bros eval replay`
  local out; out=$(mktemp -d)/run
  if "$bros" eval replay --out "$out" "${@:2}" >"$out.log" 2>&1; then
    cp "$out/results.json" "$here/$1.json"; echo "$1 done"
  else echo "$1 failed: $(tail -2 "$out.log")"; fi
}
small="--step-time affine-llama3-8b-h200 --pool-tokens 120000 --max-running-requests 256"
all=rt-alone,be-alone,fcfs,fcfs-mixed,lpm,priority,priority-mixed,round-robin,round-robin-apart,bros,bros-host-cache,free-swap
case ${1:-all} in
s1|all)
  for rate in 1.65 3.3 5; do for tpot in 50 200; do
    replay "s1-rate$rate-tpot$tpot" $small --rt sharegpt:rate=$rate --be paper:outstanding=128 --policies $all \
      --seconds 120 --ttft-ms 400 --tpot-ms $tpot
  done; done ;;&
pool|all)
  for rate in 3.3 5; do
    replay "s1-rate$rate-tpot50-pool500k" ${small/120000/500000} --rt sharegpt:rate=$rate --be paper:outstanding=128 \
      --policies rt-alone,fcfs,fcfs-mixed,priority-mixed,round-robin,round-robin-apart,bros,free-swap --seconds 120 --ttft-ms 400 --tpot-ms 50
  done ;;&
s2|all)
  replay s2-azure $small --rt azure --be arxiv:outstanding=64 --policies rt-alone,fcfs-mixed,priority-mixed,bros,bros-host-cache \
    --seconds 300 --ttft-ms 400 --tpot-ms 50 ;;&
s3|all)
  replay s3-mooncake --rt mooncake --be paper:outstanding=128,prefix=1000 \
    --policies rt-alone,fcfs-mixed,priority-mixed,bros,bros-host-cache --seconds 300 --speed 0.25 --ttft-ms 2000 --tpot-ms 50 ;;&
opt|all)
  replay opt-13b --model opt-13b --gpu a100-40g --rt sharegpt:rate=0.25,max_context=2048 --be paper:outstanding=128 \
    --policies rt-alone,fcfs-mixed,priority-mixed,round-robin,bros --seconds 120 --ttft-ms 400 --tpot-ms 200 ;;&
seeds|all)
  for seed in 0 1 2; do
    replay "seeds/s1-rate3.3-seed$seed" $small --rt sharegpt:rate=3.3 --be paper:outstanding=128 --seed $seed \
      --policies rt-alone,fcfs-mixed,priority-mixed,bros,bros-host-cache,free-swap --seconds 120 --ttft-ms 400 --tpot-ms 50
    replay "seeds/s1-rate5-pool500k-seed$seed" ${small/120000/500000} --rt sharegpt:rate=5 --be paper:outstanding=128 \
      --seed $seed --policies rt-alone,fcfs-mixed,priority-mixed,bros --seconds 120 --ttft-ms 400 --tpot-ms 50
  done ;;&
ablation|all)
  for variant in "" be_floor_share=0 keep_preempted=false park_decodes=false 'batch_sizing="fixed"' \
    'batch_sizing="aimd"' decode_lead=0 room_patience=0 arrival_guard=0.15 late_launch=false "headroom_max_share=0,headroom_min_share=0" mixed_chunk=false; do
    tr ',' '\n' <<<"$variant" >/tmp/bros-ablation.toml
    BROS_CONFIG=/tmp/bros-ablation.toml replay "ablation-${variant:-none}" $small --rt sharegpt:rate=3 \
      --be paper:outstanding=128 --policies bros --seconds 120 --ttft-ms 400 --tpot-ms 50
  done ;;
esac
