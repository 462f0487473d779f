r"""Compares a run of `vitjax finetune` with a grid of settings around it.

  python -m scripts.finetune_grid runs/finetune-images

trains, in runs/finetune-images/grid, the recipe of that run with one setting
changed at a time: a third of the learning rate and three times as much, with
or without mirror images, and, from scratch, without mixup; all for the same
epochs. Of these and the run itself, the one that is best on `val` is the
hand-tuned one. It and the run of the rules are evaluated on `test`, or on `val`
without one. An interrupted grid resumes.
"""

import argparse
import pathlib
import shlex
import subprocess
import sys

from vitjax.evaluate import evaluation
from vitjax.finetune import stored
from vitjax.finetune.recipe import Recipe
from vitjax.run_folder import reader

RATES = (1 / 3, 3)


def neighbours(recipe: Recipe) -> dict[str, Recipe]:
  """Name -> the recipe with one setting changed."""
  run = recipe.resolve()
  found = {}
  for factor in RATES:
    rate = float(f"{run.optim['learning_rate'] * factor:.2g}")
    found[f"lr{rate:g}"] = recipe.changed({"optim.learning_rate": rate})
  flip = not recipe.options["flip"]
  found["flip" if flip else "noflip"] = recipe.changed(flip=flip)
  if run.mixing.mixup_alpha:
    found["nomixup"] = recipe.changed({"mixing.mixup_alpha": 0.0})
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
  runs = {"the rules": run}
  for name, recipe in neighbours(choice.recipe).items():
    runs[name] = run / "grid" / name
    words = shlex.split(recipe.command(runs[name]).replace("\\\n", ""))[2:]
    subprocess.run([sys.executable, "-m", "vitjax.main", *words], check=True)
  scores = {name: score(run, "val", metric) for name, run in runs.items()}
  for name, value in scores.items():
    print(f"{name}: val {metric} {value:.4f}", flush=True)
  best = max(scores, key=lambda name: scores[name])
  split = choice.test or "val"
  tuned = score(runs[best], split, metric)
  rules = score(run, split, metric)
  print(
    f"{split} {metric}: by the rules {rules:.4f}, tuned ({best}) {tuned:.4f}, "
    f"difference {100 * (rules - tuned):+.2f} points"
  )


if __name__ == "__main__":
  main()
