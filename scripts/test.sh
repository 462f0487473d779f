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
fi
python -m pytest -n auto \
  -m "not slow and not network and not accelerator" "$@"
