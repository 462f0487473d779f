#!/usr/bin/env bash
# Installs vitjax with what its tests need into .venv, lints, checks types, and
# runs the default tests. Arguments go to pytest, such as -k checkpoint.
# All tests, also the slow ones: scripts/test.sh -m "not network"
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS="[test]" source scripts/environment.sh

ruff format --check .
ruff check .
pyrefly check
python -m pytest -n auto \
  -m "not slow and not network and not accelerator" "$@"
