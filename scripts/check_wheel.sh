#!/usr/bin/env bash
# Builds the sdist and from it the wheel, installs the wheel into an empty
# environment, and uses it in a folder outside of the checkout.
# PYTHON names the interpreter, REQUIREMENTS the set of versions to install.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="${PYTHON:-python3}"
constraints="$PWD/${REQUIREMENTS:-requirements.txt}"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1

"$PYTHON" -m venv "$folder/build"
"$folder/build/bin/pip" install --quiet build
"$folder/build/bin/python" -m build --outdir "$folder/dist" . >/dev/null
"$PYTHON" - "$folder/dist" <<'END'
import pathlib, subprocess, sys, tarfile, zipfile
dist = pathlib.Path(sys.argv[1])
(wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
tracked = subprocess.check_output(["git", "ls-files"], text=True).split()
packed = {
  name.partition("/")[2] for name in tarfile.open(sdist).getnames()
}
hidden = (".github/",)  # nothing that builds or tests reads it
lost = [x for x in tracked if x not in packed and not x.startswith(hidden)]
shipped = set(zipfile.ZipFile(wheel).namelist())
for name in tracked:
  inside = name if name.startswith("vitjax/") else f"vitjax/{name}"
  if name.startswith(("vitjax/", "configs/")) and inside not in shipped:
    lost.append(inside)
sys.exit(f"missing from {dist}: {lost}" if lost else 0)
END

"$PYTHON" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --constraint "$constraints" \
  "$folder"/dist/*.whl
PATH="$folder/venv/bin:$PATH"
unset PYTHONPATH
mkdir -p "$folder/work/mine"
cd "$folder/work"

# Runs a command that must fail and say $1.
must_say() {
  local part="$1" said
  shift
  if said="$("$@" 2>&1)" || ! grep --quiet --fixed-strings "$part" <<<"$said"
  then
    printf '%s should fail and say %s, but said:\n%s\n' "$*" "$part" "$said"
    exit 1
  fi
}

python -c '
import importlib.metadata, vitjax
assert importlib.metadata.version("vitjax") == vitjax.__version__
from vitjax.config import shipped
shipped.load("plain_vit.py:ti16,smoke")'
vitjax configs | grep '^plain_vit.py '
vitjax train --config=quickstart.py --config.total_epochs=1 --workdir=run
python -c '
import cv2, numpy
cv2.imwrite("digit.png", numpy.zeros((8, 8), numpy.uint8))'
vitjax predict --model=run digit.png
vitjax export --model=run --out=digits.npz

# A config file of one's own, in a folder of its own.
vitjax configs copy plain_vit.py mine
cat > mine/own.py <<'END'
import quickstart
from vitjax.config import common


def get_config(arg=None):
  options = common.parse_arg(arg, steps=1)
  config = quickstart.get_config()
  del config.total_epochs
  config.total_steps = options.steps
  return config
END
vitjax train --config=mine/own.py:steps=2 --workdir=own
echo 'from configs import common' > mine/old.py
must_say 'from vitjax.config import common' vitjax train --config=mine/old.py
must_say 'pip install "vitjax[plots]"' vitjax report run
echo "The wheel works."
