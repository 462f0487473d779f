"""The notebooks: both forms agree, cells run, and settings are valid."""

import ast
import os
import pathlib
import re
import subprocess
import sys

import jupytext
import pytest

from colabs import smoke
from configs import augreg, transfer
from vitjax import checks
from vitjax.config import resolving
from vitjax.weights import zoo

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "colabs"
NAMES = ("lit", "vitjax", "vitjax_augreg")
FAILED = re.compile(r"\b\w*Warning\b|^WARNING|Traceback", re.MULTILINE)


def read(file):
  return jupytext.read(FOLDER / file)


def cells(notebook):
  return [(cell.cell_type, cell.source) for cell in notebook.cells]


def settings(name):
  """Values that the settings cell assigns outside of the smoke mode."""
  (cell,) = [x for _, x in cells(read(f"{name}.py")) if "smoke.NOTE" in x]
  values = {}
  for node in ast.parse(cell).body:
    if isinstance(node, ast.Assign):
      for target in node.targets:
        try:
          value = ast.literal_eval(node.value)
        except ValueError:
          continue  # a path
        names = getattr(target, "elts", [target])
        parts = value if len(names) > 1 else [value]
        values |= {x.id: part for x, part in zip(names, parts)}
  return values


def test_every_notebook_is_known():
  assert sorted(x.stem for x in FOLDER.glob("*.ipynb")) == [*NAMES]
  scripts = [
    x.stem for x in FOLDER.glob("*.py") if "jupytext:" in x.read_text()
  ]
  assert sorted(scripts) == [*NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_are_the_same(name):
  made = f"jupytext --update --to ipynb colabs/{name}.py"
  assert cells(read(f"{name}.ipynb")) == cells(read(f"{name}.py")), made


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stripped(name):
  for cell in read(f"{name}.ipynb").cells:
    if cell.cell_type == "code":
      assert not cell.outputs and cell.execution_count is None


def test_all_install_alike():
  first = [cells(read(f"{name}.py"))[1:4] for name in NAMES]
  assert "SOURCE = None" in first[0][1][1] and "jax.devices()" in first[0][2][1]
  assert first[0] == first[1] == first[2]


def test_what_a_user_gets_exists():
  for name in ("lit", "vitjax"):
    values = settings(name)
    assert zoo.find(values["MODEL"]).has_home
    assert values["PRETRAINED_DIR"] is None
  lit = zoo.find(settings("lit")["MODEL"])
  assert lit.vocab

  values = settings("vitjax")
  runs = [transfer.get_config("{MODEL},{DATA},{OPTIONS}".format(**values))]
  values = settings("vitjax_augreg")
  runs.append(augreg.get_config("{FINETUNE},{DATA},{OPTIONS}".format(**values)))
  for run in runs:
    run.report = {"every_percent": 4}
    resolving.resolve(run, checks.problems)


# Text that the cells print in the smoke mode.
SHOWN = {
  "lit": [
    "vectors: (2, 32) (5, 32)",
    "of 12 images",
    "2 classes: flower, temp",
  ],
  "vitjax": [
    "5,717,416  in total",
    "val/n_seen           12",
    "('flower', 'tem",
  ],
  "vitjax_augreg": [
    "32 rows.",
    "Chosen: Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0"
    "--imagenet2012-steps_20k-lr_0.03-res_224",
    # timm's copy of the checkpoint that the authors recommend.
    "weights 'vit_tiny_r_s16_p8_224.augreg_in21k.safetensors'",
    "val/n_seen           12",
  ],
}
PICTURES = {"lit": 2, "vitjax": 4, "vitjax_augreg": 3}


def first_cell():
  """The code that makes vitjax importable."""
  return next(x for kind, x in cells(read("lit.py")) if kind == "code")


def run_elsewhere(tmp_path, **environment):
  """Runs the first cell away from the checkout, then imports vitjax."""
  code = f"{first_cell()}\nimport vitjax\nprint(vitjax.__file__)"
  return subprocess.run(
    [sys.executable, "-S", "-c", code],  # without site-packages
    cwd=tmp_path,
    env={"PATH": os.environ["PATH"], **environment},
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_first_cell_uses_the_vitjax_that_is_installed(tmp_path):
  package = tmp_path / "site" / "vitjax"
  package.mkdir(parents=True)
  (package / "__init__.py").touch()
  there = os.fspath(package.parent)
  done = run_elsewhere(tmp_path, PYTHONPATH=there)
  assert done.stdout.strip() == os.fspath(package / "__init__.py"), done.stderr


def test_the_first_cell_says_what_to_set_without_a_vitjax(tmp_path):
  done = run_elsewhere(tmp_path)
  assert "set SOURCE in this cell" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, tmp_path):
  import nbclient

  notebook = read(f"{name}.ipynb")
  client = nbclient.NotebookClient(
    notebook,
    timeout=600,
    kernel_name="python3",
    resources={"metadata": {"path": os.fspath(FOLDER)}},
  )
  client.execute(
    env={
      **os.environ,
      "VITJAX_SMOKE": "1",
      "JAX_PLATFORMS": "cpu",
      "TMPDIR": os.fspath(tmp_path),
    }
  )
  text, pictures = "", 0
  for cell in notebook.cells:
    for output in cell.get("outputs", []):
      text += output.get("text", "")
      pictures += "image/png" in output.get("data", {})
  assert not FAILED.search(text), text
  for shown in SHOWN[name]:
    assert shown in text
  assert "x cpu (cpu)" in text
  assert smoke.NOTE in text
  assert pictures == PICTURES[name]
