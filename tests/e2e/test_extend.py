"""What docs/extend.md shows can be trained, evaluated, exported and loaded."""

import pathlib
import re
import sys

import numpy as np
import pytest

import vitjax
from configs import quickstart
from vitjax import checks, train
from vitjax.config import resolving, schema
from vitjax.data import pipeline
from vitjax.data.pp import builder

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "extend.md"


@pytest.fixture
def blocks(tmp_path, monkeypatch):
  """The blocks of code; those of modules are files that can be imported."""
  found = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
  for block in found:
    if match := re.match(r"# (\S+\.py)\n", block):
      file = tmp_path / match[1]
      file.parent.mkdir(exist_ok=True)
      file.write_text(block)
  monkeypatch.syspath_prepend(tmp_path)
  yield found
  for name in [x for x in sys.modules if x.split(".")[0] == "my_package"]:
    del sys.modules[name]


@pytest.mark.slow
def test_the_examples_of_the_docs_work(blocks, tmp_path, monkeypatch):
  names = {}
  (op,) = [x for x in blocks if "def invert" in x]
  exec(op, names)
  monkeypatch.setitem(builder.OPS, "invert", names["invert"])
  black = np.zeros((2, 2, 3), np.uint8)
  features = pipeline.run_once(builder.build("invert"), black)
  assert (features["image"] == 255).all()

  cfg = quickstart.get_config()
  del cfg.total_epochs
  cfg.total_steps = 8
  cfg.input.pp = cfg.evals.test.pp = "invert|value_range(-1, 1)"
  for block in [x for x in blocks if x.startswith("config.")]:
    exec(block, {"config": cfg})
  cfg.evals.mine.pp = cfg.input.pp
  run = resolving.resolve(cfg, checks.problems)
  metrics = train.train_and_evaluate(run, tmp_path / "run")
  assert metrics["mine/n_seen"] == 360
  assert metrics["mine/accuracy"] == pytest.approx(100 * metrics["test/acc@1"])

  file = tmp_path / "run" / "params.npz"
  with pytest.raises(ValueError, match=r"--allow_module=my_package\.my_model"):
    vitjax.load(file)
  exported = vitjax.load(file, allow_module="my_package.my_model")
  assert exported.model.width == 16
  assert exported.features(np.zeros((1, 8, 8, 1))).shape == (1, 16)


def test_an_option_that_is_not_in_the_signature_is_refused(blocks):
  cfg = quickstart.get_config()
  for block in [x for x in blocks if x.startswith("config.")]:
    exec(block, {"config": cfg})
  cfg.model.widht = 3
  cfg.evals.mine.sclae = 1.0
  with pytest.raises(schema.ConfigError, match=r"(?s)'width'.*'scale'"):
    resolving.resolve(cfg, checks.problems)
