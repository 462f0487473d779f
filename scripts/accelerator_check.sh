#!/usr/bin/env bash
# Checks vitjax on a GPU or TPU and measures its speed, in under 10 minutes.
#
#   scripts/accelerator_check.sh                # everything that is not done
#   scripts/accelerator_check.sh --seconds=540  # stop in time, then call again
#   scripts/accelerator_check.sh --retry        # the failed parts once more
#
# A fresh clone is installed into .venv first, which needs a network; where jax,
# flax and optax are importable, nothing is installed. Without an accelerator
# everything is tiny (--tiny) and shows that the check itself works.
#
# Results are in runs/accelerator/: in results.jsonl a line for each part,
# written when the part ends, the table in table.md, and a log for each process.
#
# A machine that gets only a copy of this folder and ends each command after 10
# minutes needs two calls of the same command. The second does what the first
# left, if runs/accelerator/ is still there; else copy results.jsonl into it.
#
#   PYTHON=python3 scripts/accelerator_check.sh --seconds=560
#
# Without TensorFlow, ml_collections, clu and beartype the parts that need them
# are skipped and say so. Exit codes: 0 if no part failed, 1 if one did, and
# 2 if parts are left for another call.
set -euo pipefail
cd "$(dirname "$0")/.."
if "${PYTHON:-python3}" -c "import jax, flax, optax, orbax.checkpoint" \
  2>/dev/null
then
  exec "${PYTHON:-python3}" -m scripts.accelerator_check "$@"
fi
if command -v nvidia-smi >/dev/null; then
  EXTRAS="[test,gpu]"
elif compgen -G "/dev/accel*" >/dev/null || compgen -G "/dev/vfio/*" >/dev/null
then
  EXTRAS="[test,tpu]"
fi
EXTRAS="${EXTRAS:-[test]}" source scripts/environment.sh
exec python -m scripts.accelerator_check "$@"
