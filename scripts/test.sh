#!/usr/bin/env bash
# Installs vitjax with what its tests need into .venv, lints, checks types, and
# runs the default tests. Arguments go to pytest, such as -k checkpoint.
# All tests, also the slow ones: scripts/test.sh -m "not network"
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS="[test]" source scripts/environment.sh

ruff format --check .
ruff check .
# Types are those of the pinned packages; JAX 0.12 declares some in other ways.
if [ "${REQUIREMENTS:-requirements.txt}" = requirements.txt ]; then
  pyrefly check
  # The older generator of code compiles a third faster; JAX 0.12 has lost it.
  # Slow tests need the one of users: they compare bits of different programs.
  if [ $# -eq 0 ]; then
    XLA_FLAGS="--xla_backend_optimization_level=0"
    export XLA_FLAGS="$XLA_FLAGS --xla_cpu_use_fusion_emitters=false"
  fi
fi
python -m pytest -n auto \
  -m "not slow and not network and not accelerator" "$@"
