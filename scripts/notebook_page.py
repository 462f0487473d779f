"""Runs a notebook on handwritten digits and keeps its results in the docs.

  python -m scripts.notebook_page   # ten minutes on two cores, no network

Trains a small ViT on the digits 0 to 4, then runs colabs/vitjax.py with it in
place of published weights, and writes docs/notebook.md and docs/notebook/. The
text of the page before its first heading is written by hand. Run it again when
the cells of the notebook change. Needs the extra `colabs`.
"""

import base64
import os
import pathlib
import re
import shutil
import subprocess
import sys

import cv2
import jupytext
import nbclient
from sklearn import datasets

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "notebook.md"
NOTEBOOK = ROOT / "colabs" / "vitjax.py"
FOLDER = pathlib.Path("runs", "notebook")  # in ROOT
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
    'pp = "decode|inception_crop(32, area_min=50)|value_range(-1, 1)"\n'
    "config.input.pp = pp\n"
    "config.evals.val.pp = model.preprocess"
  ),
}


def write_digits(folder: pathlib.Path, num_classes: int) -> None:
  """Writes the first classes of scikit-learn's digits, in train/ and val/."""
  digits = datasets.load_digits()
  for i, (image, label) in enumerate(zip(digits.images, digits.target)):
    if label < num_classes:
      split = "val" if i % 5 == 0 else "train"
      file = folder / split / str(label) / f"{i:04d}.png"
      file.parent.mkdir(parents=True, exist_ok=True)
      cv2.imwrite(os.fspath(file), (image * 15).astype("uint8"))


def train() -> None:
  """Trains the model to look into: a class token, learned positions."""
  command = [
    *(sys.executable, "-m", "vitjax.main"),
    "--config=configs/plain_vit.py:ti8,res=32,"
    f"data=folder:{FOLDER}/five,batch=64,epochs=40",
    "--config.model.depth=4",
    "--config.model.pool_type=tok",
    "--config.model.posemb=learn",
    "--config.input.pp=decode|inception_crop(32, area_min=50)|"
    "value_range(-1, 1)",
    f"--workdir={FOLDER}/model",
  ]
  subprocess.run(command, cwd=ROOT, check=True)


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
  shutil.rmtree(ROOT / FOLDER / "tuned", ignore_errors=True)
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
  for name, num_classes in (("five", 5), ("ten", 10)):
    write_digits(FOLDER / name, num_classes)
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
