#!/usr/bin/env bash
# Installs vitjax into .venv and trains a small ViT on scikit-learn's digits.
# Needs Python 3.11 or newer with pip and venv; downloads packages, no data.
# Set PYTHON to choose an interpreter and VENV to put the environment elsewhere.
# Arguments are passed on, such as --config.total_epochs=10.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

python -m vitjax.main --config=configs/quickstart.py "$@"
