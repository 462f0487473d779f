"""Runs a notebook on handwritten digits and keeps its results in the docs.

  python -m scripts.notebook_page   # a few minutes on two cores, no network

Trains a small ViT on the digits 0 to 4, then runs colabs/vitjax.py with it
instead of published weights, and writes docs/notebook.md and docs/notebook/.
The text of the page before its first heading is written by hand. Run it again
when the cells of the notebook change. Needs the extra `colabs`.
"""

import base64
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jupytext
import nbclient

from vitjax.data import sample

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "notebook.md"
NOTEBOOK = ROOT / "colabs" / "vitjax.py"
FOLDER = pathlib.Path("runs", "inside")  # in ROOT
FIRST = "## Load"  # the heading with which the page begins
# Lines of the notebook, and what they become.
CHANGES = {
  'MODEL = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"': (
    f'MODEL = "{FOLDER}/model"'
  ),
  "IMAGES = ()": (
    f'IMAGES = ("{FOLDER}/ten/val/0/0010.png", "{FOLDER}/ten/val/3/0045.png")'
  ),
  'DATA = "cifar10"': f'DATA = "folder:{FOLDER}/ten"',
  'OPTIONS = "batch=128,steps=500,res=224"': (
    'OPTIONS = "batch=64,steps=450,res=32,optim=adamw,lr=1e-3"'
  ),
  'WORKDIR = pathlib.Path("runs/colab_vitjax")': (
    f'WORKDIR = pathlib.Path("{FOLDER}/tuned")'
  ),
  'config.report = {"every_percent": 4}': (
    'config.report = {"every_percent": 4}\n'
    "# The recipe mirrors images and crops small parts, which changes digits.\n"
    'crop = "random_crop(32, padding=2)"\n'
    'config.input.pp = f"decode|resize(32)|{crop}|value_range(-1, 1)"\n'
    "config.evals.val.pp = model.preprocess"
  ),
}


def train() -> None:
  """Trains the model to look into, on the digits 0 to 4."""
  shutil.rmtree(FOLDER, ignore_errors=True)
  sample.write_digits(FOLDER / "ten")
  for split in ("train", "val"):
    for digit in "01234":
      part = f"{split}/{digit}"
      shutil.copytree(FOLDER / "ten" / part, FOLDER / "five" / part)
  command = [
    *(sys.executable, "-m", "vitjax.main"),
    f"--config=configs/small_vit.py:folder:{FOLDER}/five",
    "--config.model.pool_type=tok",
    f"--workdir={FOLDER}/model",
  ]
  subprocess.run(command, check=True)


def changed():
  """The notebook, for digits."""
  notebook = jupytext.read(NOTEBOOK)
  for old, new in CHANGES.items():
    found = [cell for cell in notebook.cells if old in cell.source.splitlines()]
    if len(found) != 1:
      raise ValueError(f"{NOTEBOOK} has {old!r} in {len(found)} cells.")
    found[0].source = found[0].source.replace(old, new)
  return notebook


def execute(notebook) -> None:
  """Runs the cells; their outputs are in the notebook then."""
  resources = {"metadata": {"path": os.fspath(NOTEBOOK.parent)}}
  client = nbclient.NotebookClient(notebook, timeout=900, resources=resources)
  client.execute(env={**os.environ, "JAX_PLATFORMS": "cpu"})


def shown(notebook) -> tuple[str, dict[str, bytes]]:
  """Cells and outputs from `FIRST` on, as Markdown; and the pictures."""
  text, pictures, heading, begun = [], {}, "", False
  for cell in notebook.cells:
    begun |= cell.source.startswith(FIRST)
    if not begun:
      continue
    if cell.cell_type == "markdown":
      heading = cell.source.partition("\n")[0].lstrip("# ") or heading
      text.append(cell.source)
      continue
    text.append(f"```python\n{cell.source}\n```")
    lines = "".join(output.get("text", "") for output in cell.outputs)
    if lines := lines.replace(f"{ROOT}{os.sep}", "").strip("\n"):
      text.append(f"```text\n{lines}\n```")
    for output in cell.outputs:
      if picture := output.get("data", {}).get("image/png"):
        name = f"{re.sub('[^a-z]+', '_', heading.lower())}.png"
        pictures[name] = base64.b64decode(picture)
        text.append(f"![{heading}: output of the cell](notebook/{name})")
  return "\n\n".join(text), pictures


def main() -> None:
  os.chdir(ROOT)
  train()
  notebook = changed()
  execute(notebook)
  text, pictures = shown(notebook)
  intro = PAGE.read_text(encoding="utf-8").partition(f"\n{FIRST}")[0].strip()
  PAGE.write_text(f"{intro}\n\n{text}\n", encoding="utf-8")
  folder = PAGE.with_suffix("")
  folder.mkdir(exist_ok=True)
  for name, picture in pictures.items():
    (folder / name).write_bytes(picture)
  print(f"wrote {PAGE} and {len(pictures)} pictures")


if __name__ == "__main__":
  main()
