"""Two processes train on several classes and on numbers as one does."""

import cv2
import numpy as np
import pytest

from tests.multiprocess import processes
from vitjax.data import sources
from vitjax.run_folder.reader import read_metrics

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """Digits as files; of every third one a label is unknown."""
  root = tmp_path_factory.mktemp("digits")
  lines = ["file,odd,big,split"]
  for split, count in (("train", 64), ("test", 45)):
    source = sources.open_source("digits", f"{split}[:{count}]")
    images = source.fetch(np.arange(count))["image"].numpy()
    for i, (image, digit) in enumerate(zip(images, source.labels)):
      assert cv2.imwrite(str(root / f"{split}{i}.png"), image)
      big = "" if i % 3 == 0 else int(digit >= 5)
      lines.append(f"{split}{i}.png,{digit % 2},{big},{split}")
  path = root / "table.csv"
  path.write_text("\n".join(lines))
  return path


@pytest.mark.parametrize(
  ("kind", "loss"), [("multi_label", "sigmoid_xent"), ("regression", "mse")]
)
def test_two_processes_are_one(tmp_path, cache, table, kind, loss):
  pp = "decode(channels=1)|resize(8)|value_range(-1, 1)"
  found = []
  for count in (1, 2):
    workdir = tmp_path / str(count)
    arguments = processes.command(
      workdir,
      f"input.data=labels:{table}:{kind}=odd+big:ignore=empty",
      f"input.pp={pp}",
      "input.repeats=1",
      "input.sampling=None",
      "class_weights=None",
      f"loss={loss}",
      "mixing.label_smoothing=0",
      "evals.test.split=test",
      f"evals.test.type={kind}",
      f"evals.test.pp={pp}",
      "checkpoint.best_metric=test/loss",
      "total_steps=8",
    )
    for end in processes.run(arguments, count, cache=cache):
      end.assert_done()
    found.append(read_metrics(workdir)[-1])
  assert found[0]["test/n_seen"] == 45  # no multiple of the batch
  assert found[1] == pytest.approx(found[0], rel=1e-3)
