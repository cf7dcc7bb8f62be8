#!/usr/bin/env bash
# Train on several processes of one machine, a GPU each:
#
#     tools/dist_train.sh NUM_PROCESSES CONFIG [OPTIONS OF train.py]
set -euo pipefail
processes=${1:?usage: dist_train.sh NUM_PROCESSES CONFIG [OPTIONS]}
shift
exec python -m torch.distributed.run --standalone --nproc-per-node "$processes" \
    "$(dirname "$0")/train.py" "$@" --launcher pytorch
