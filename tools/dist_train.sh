#!/usr/bin/env bash
# Train with several processes on one machine, one GPU each:
#
#     tools/dist_train.sh NUM_PROCESSES CONFIG [OPTIONS OF train.py]
set -euo pipefail
processes=${1:?usage: dist_train.sh NUM_PROCESSES CONFIG [OPTIONS]}
shift
tools=$(dirname "$0")
# With a short interval torchrun sees which process failed first, before the
# others fail because of it.
exec python -m mmcyclemlp.engine.torchrun --standalone --monitor-interval 0.1 \
    --nproc-per-node "$processes" "$tools/train.py" "$@" --launcher pytorch
