# shellcheck shell=bash
# Sourced by quickstart.sh and test.sh: makes the virtual environment if there
# is none, installs this checkout into it, and activates it. REQUIREMENTS names
# another set of packages: docs/versions.md.
VENV="${VENV:-.venv}"
PYTHON="${PYTHON:-python3}"
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "vitjax needs Python 3.11 or newer: set PYTHON=/path/to/python3.11" >&2
  exit 1
fi
if [ ! -x "$VENV/bin/python" ]; then
  if ! "$PYTHON" -m venv "$VENV"; then
    echo "On Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  fi
fi
# shellcheck disable=SC1091
source "$VENV/bin/activate"
python -m pip install --quiet --disable-pip-version-check \
  --requirement "${REQUIREMENTS:-requirements.txt}" --editable ".${EXTRAS:-}"
