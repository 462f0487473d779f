"""The loop with steps of several sizes: record, compilations, resuming."""

import jax
import numpy as np
import pytest
from absl import logging

from vitjax import checks, train
from vitjax.checkpoint import checkpointer
from vitjax.config import resolving
from vitjax.evaluate import evaluation
from vitjax.program.compiled import Steps
from vitjax.program.variants import of_run
from vitjax.run_folder.reader import read_metrics

pytestmark = pytest.mark.slow
TOTAL = 8
PP = "value_range(-1, 1)"


def resolve():
  return resolving.resolve(
    {
      "total_steps": TOTAL,
      "input": {"data": "digits", "batch_size": 16, "pp": PP},
      "flexible": {"patch_sizes": (2, 4), "image_sizes": (4, 8)},
      "model": {"name": "vit", "width": 8, "depth": 0, "num_heads": 1}
      | {"patch_size": 4, "patch_kernel": 8, "posemb_grid": 3}
      | {"pool_type": "gap", "posemb_resize": "linear"},
      "optim": {"name": "adam", "learning_rate": 1e-2},
      "mixing": {"mixup_alpha": 0.2},
      "evals": {
        "test": {"split": "test[:40]", "pp": PP, "batch_size": 16}
        | {"patch_sizes": (2, 4)}
      },
      "checkpoint": {"every_steps": 4, "best_metric": "test/patch2/acc@1"},
      "report": {"every_steps": 1},
    },
    checks.problems,
  )


class CrashError(Exception):
  """What ends a run here."""


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
  """A run from its start to its end, and what it logs of compilations."""
  workdir, lines = tmp_path_factory.mktemp("straight"), []
  with pytest.MonkeyPatch.context() as monkeypatch:
    info = logging.info

    def kept(text, *args):
      if str(text).startswith("Compiled train step"):
        lines.append(text % args)
      info(text, *args)

    monkeypatch.setattr(logging, "info", kept)
    train.train_and_evaluate(resolve(), workdir)
  return workdir, lines


def rows(workdir):
  """The record without what depends on the clock."""
  return [
    {k: v for k, v in row.items() if k in ("step", *MEASURED)}
    for row in read_metrics(workdir)
  ]


MEASURED = (
  *(f"train/{x}" for x in ("loss", "grad_norm", "patch_size", "image_size")),
  *(f"test/patch{n}/{x}" for n in (2, 4) for x in ("acc@1", "loss")),
)


def test_each_step_has_its_sizes(straight):
  workdir, lines = straight
  choice = of_run(resolve(), TOTAL, (8, 8))
  found = [r for r in rows(workdir) if "train/loss" in r]
  assert [r["step"] for r in found] == [*range(1, TOTAL + 1)]
  assert {r["train/patch_size"] for r in found} == {2, 4}
  for row in found:
    variant = choice.at(row["step"])
    assert row["train/patch_size"] == variant.patch_size
    assert row["train/image_size"] == variant.image_size
  used = {choice.at(row["step"]) for row in found} | {choice.all[0]}
  assert len(lines) == len(used)
  assert lines[0].startswith(
    "Compiled train step 1 of 4, for patch size 2, image size 8."
  )


def test_an_eval_has_a_metric_for_each_size(straight):
  last = read_metrics(straight[0])[-1]
  assert last["test/n_seen"] == 40
  assert last["test/patch2/loss"] != last["test/patch4/loss"]
  assert 0 <= last["test/patch2/acc@1"] <= 1


def test_the_command_gives_the_same_curve(straight):
  last = read_metrics(straight[0])[-1]
  (result,) = evaluation.evaluate(straight[0], patch_sizes=[4, 2])
  assert next(iter(result.metrics)).startswith("patch4/")
  for name in ("patch2/acc@1", "patch2/loss", "patch4/loss"):
    assert result.metrics[name] == pytest.approx(last[f"test/{name}"], 1e-6)
  with pytest.raises(ValueError, match="'x' is not a number of pixels"):
    evaluation.parse_patch_sizes(["4", "x"])


def test_a_run_that_crashed_resumes_to_the_bit(straight, tmp_path, monkeypatch):
  at = Steps.at

  def crash(self, step, paused):
    if step == 7:
      raise CrashError
    return at(self, step, paused)

  with monkeypatch.context() as patch:
    patch.setattr(Steps, "at", crash)
    with pytest.raises(CrashError):
      train.train_and_evaluate(resolve(), tmp_path)
  train.train_and_evaluate(resolve(), tmp_path)
  assert rows(tmp_path) == rows(straight[0])
  ended = [
    checkpointer.load_params(folder / "checkpoints", step="latest")
    for folder in (tmp_path, straight[0])
  ]
  flat = [
    np.concatenate([x.reshape(-1) for x in jax.tree.leaves(params)])
    for _, params, _ in ended
  ]
  assert ended[0][0] == ended[1][0] == TOTAL
  assert flat[0].tobytes() == flat[1].tobytes() and flat[0].size > 100
