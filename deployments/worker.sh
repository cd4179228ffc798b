#!/usr/bin/env bash
# What runs builds: Prefect's worker, and a Ray node without processors through which builds reach the cluster.
# If one of them ends, both do. Running builds are handed back first; the next worker resumes them.
set -eu
export NORMLOOM_WORKER="$HOSTNAME-$$-$RANDOM"  # builds inherit it

stop() {
    python -m normloom.prefect.serving.hand_back "$worker" || true
    kill "$node" 2> /dev/null && wait "$node" || true
}

ray start --address=ray-head:6379 --include-log-monitor=false --num-cpus=0 --num-gpus=0 --block &
node=$!
python -m normloom.prefect.run_marks "$NORMLOOM_STORE"  # runs that died with the worker before this one
prefect worker start --pool normloom --type process --with-healthcheck &
worker=$!
trap stop EXIT
trap 'exit 143' TERM INT
wait -n
