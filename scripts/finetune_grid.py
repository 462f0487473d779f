r"""Compares a run of `vitjax finetune` with a grid of settings around it.

  python -m scripts.finetune_grid runs/finetune-images

trains, in runs/finetune-images/grid, the recipe of that run with three learning
rates, with and without mirror images, and for a recipe from scratch with and
without mixup; all for the same epochs. The run that is best on `val` is the
hand-tuned one; it and the run of the rules are then evaluated on `test`, or on
`val` without one. An interrupted grid resumes.
"""

import argparse
import itertools
import pathlib
import shlex
import subprocess
import sys

from vitjax.evaluate import evaluation
from vitjax.finetune import stored
from vitjax.finetune.recipe import Recipe
from vitjax.run_folder import reader

RATES = (1 / 3, 1, 3)


def neighbours(recipe: Recipe) -> dict[str, Recipe]:
  """Name -> recipe, among them the given one."""
  run = recipe.resolve()
  rate, mixup = run.optim["learning_rate"], run.mixing.mixup_alpha
  found = {}
  for factor, flip, mixed in itertools.product(
    RATES, (True, False), {mixup, 0.0}
  ):
    overrides = {"optim.learning_rate": float(f"{rate * factor:.2g}")}
    if mixed != mixup:
      overrides["mixing.mixup_alpha"] = mixed
    name = f"lr{overrides['optim.learning_rate']:g}"
    name += "-flip" * flip + "-mixup" * bool(mixed)
    found[name] = recipe.changed(overrides, flip=flip)
  return found


def score(workdir: pathlib.Path, split: str, metric: str) -> float:
  """A metric of the best checkpoint."""
  metrics = reader.read_config(workdir / "config.json")["evals"]["val"][
    "metrics"
  ]
  evals = {"grid": {"split": split, "metrics": metrics}}
  [result] = evaluation.evaluate(workdir, evals, step="best")
  if result.metrics is None:
    raise SystemExit(f"{workdir}: {result.error or result.absent}")
  return result.metrics[metric]


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("run", type=pathlib.Path)
  run = parser.parse_args().run
  _, choice = stored.load(run)
  metric = choice.recipe.overrides["checkpoint.best_metric"].partition("/")[2]
  scores = {}
  for name, recipe in neighbours(choice.recipe).items():
    workdir = run / "grid" / name
    words = shlex.split(recipe.command(workdir).replace("\\\n", ""))[2:]
    subprocess.run([sys.executable, "-m", "vitjax.main", *words], check=True)
    scores[name] = score(workdir, "val", metric)
    print(f"{name}: val {metric} {scores[name]:.4f}", flush=True)
  best = max(scores, key=lambda name: scores[name])
  split = choice.test or "val"
  tuned = score(run / "grid" / best, split, metric)
  rules = score(run, split, metric)
  print(
    f"{split} {metric}: by the rules {rules:.4f}, tuned ({best}) {tuned:.4f}, "
    f"difference {100 * (rules - tuned):+.2f} points"
  )


if __name__ == "__main__":
  main()
