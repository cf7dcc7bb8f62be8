#!/usr/bin/env bash
# Evaluate on several processes of one machine, a GPU each:
#
#     tools/dist_test.sh NUM_PROCESSES CONFIG CHECKPOINT [OPTIONS OF test.py]
set -euo pipefail
processes=${1:?usage: dist_test.sh NUM_PROCESSES CONFIG CHECKPOINT [OPTIONS]}
shift
exec python -m torch.distributed.run --standalone --nproc-per-node "$processes" \
    "$(dirname "$0")/test.py" "$@" --launcher pytorch
