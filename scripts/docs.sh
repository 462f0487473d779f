#!/usr/bin/env bash
# Builds the documentation site into site/. A dead link, an anchor or picture
# that is missing, or a reference that is out of date is an error. To read it:
#   python -m http.server --directory site
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRAS="[docs]" source scripts/environment.sh

python -m scripts.update_docs --check
python -m zensical build --clean --strict
python -m scripts.check_site
