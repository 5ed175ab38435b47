#!/usr/bin/env bash
# Trains the variable-rate model on one GPU until a given time, and goes on by itself after a crash or without compilation.
#
#   benchmarks/gpu_train.sh SECONDS RUN DATA [option of train.py ...]
#
# DATA: a folder of images or of shards (python -m data.shards). The training ends SECONDS after this command was given, with the
# learning rate at its end; RUN/last.ckpt is written every minute, and a rerun with more seconds goes on from there. Weights in
# half precision, to take home while it runs: python benchmarks/take_weights.py RUN/last.ckpt weights.safetensors
set -u
seconds=$1 run=$2 data=$3
shift 3
deadline=$(($(date +%s) + seconds))
compile=true
python=${PYTHON:-python}
export PYTHONUNBUFFERED=1
for try in 1 2 3 4; do
  left=$((deadline - $(date +%s) - ${STARTUP:-25}))  # what imports, compilation and the last checkpoint take
  ((left < 20)) && break
  done_before=$("$python" benchmarks/take_weights.py --elapsed "$run/last.ckpt" 2>/dev/null || echo 0)
  minutes=$("$python" -c "print(($done_before + $left) / 60)")
  echo "try $try: $left s left, $done_before s done, compile $compile"
  "$python" train.py fit --config configs/train/variable_rate_scale_hyperprior.yaml --config configs/train/length/half_hour_gpu.yaml \
    --data.root "$data" --output "$run" --checkpoint_minutes 1 --checkpoint_every 1000000 --model.compile $compile \
    --model.minutes "$minutes" "$@"
  code=$?
  echo "train.py ended with $code"
  ((code == 0 || code == 143 || code == 130)) && break
  compile=false
done
