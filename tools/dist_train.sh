#!/usr/bin/env bash
# Train on several processes of one machine, a GPU each:
#
#     tools/dist_train.sh NUM_PROCESSES CONFIG [OPTIONS OF train.py]
set -euo pipefail
processes=${1:?usage: dist_train.sh NUM_PROCESSES CONFIG [OPTIONS]}
shift
tools=$(dirname "$0")
# Looked at so often, the process that dies first is known from those it
# takes with it.
exec python -m mmcyclemlp.engine.torchrun --standalone --monitor-interval 0.1 \
    --nproc-per-node "$processes" "$tools/train.py" "$@" --launcher pytorch
