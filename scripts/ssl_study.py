r"""The measurements of docs/ssl.md: runs them, or writes their tables.

  python -m scripts.ssl_study RUNS           trains what is missing in RUNS
  python -m scripts.ssl_study RUNS --tables  writes the tables from RUNS

The runs are RUNS/ssl/ROW/SEED: `mae` pre-trains the encoder of
`configs/ssl.py:fashion`, and `scratch-PERCENT` and `mae-PERCENT` learn from so
many of the labels. Each is an ordinary run folder, so a killed study resumes.
Features without training are kept in RUNS/ssl/baselines.json. The tables need
the records in docs/curves/ssl, where --tables copies them.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from configs import ssl, ssl_labels
from scripts import fashion_study
from vitjax import models, step
from vitjax.config import resolving, schema
from vitjax.data import sources
from vitjax.data.pp import builder
from vitjax.evaluators import base, find
from vitjax.parallel import sharding
from vitjax.run_folder import reader

SEEDS = (0, 1, 2)
BASELINES = "baselines.json"


def commands(runs: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
  """The folder and the config of each run, the short ones first."""
  study = runs / "ssl"
  for seed in SEEDS:
    yield study / f"mae/{seed}", f"ssl.py:fashion,seed={seed}"
  for percent in ssl_labels.EPOCHS:
    for seed in SEEDS:
      config = f"ssl_labels.py:percent={percent},seed={seed}"
      yield study / f"scratch-{percent}/{seed}", config
      weights = study / f"mae/{seed}"
      yield study / f"mae-{percent}/{seed}", f"{config},weights={weights}"


def train(runs: pathlib.Path) -> None:
  """Trains one run after the other; finished ones are passed over."""
  for folder, config in commands(runs):
    done = folder / "done"
    if done.exists():
      continue
    module = ["vitjax.main", f"--config=configs/{config}"]
    subprocess.run(
      [sys.executable, "-m", *module, f"--workdir={folder}"], check=True
    )
    done.touch()


def measure_baselines(file: pathlib.Path) -> None:
  """Pixels, and encoders with random parameters, by the recipe's evals."""
  run = resolving.resolve(ssl.get_config("fashion"))
  normalise = builder.build(run.input.pp).on_device

  def pixels(params, batch):
    del params
    image = normalise(batch)["image"]
    return None, {"pre_logits": image.reshape(len(image), -1)}

  found = {"pixels": [accuracies(run, pixels, {})], "random": []}
  name, options = schema.split_name(run.model)
  model = models.create(name, **options)
  predict = step.make_predict_fn(model, normalise)
  for seed in SEEDS:
    init = jax.jit(model.init)
    params = init(jax.random.key(seed), jnp.zeros((1, 28, 28, 1)))["params"]
    found["random"].append(accuracies(run, predict, params))
  file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def accuracies(
  run: schema.RunConfig, predict: Callable, params
) -> dict[str, float]:
  """Eval -> accuracy of these features."""
  found = {}
  for name, section in run.evals.items():

    def open_split(split):
      return sources.open_source("fashion_mnist", split, cache=True)

    data = base.EvalData(
      open_split(section.split),
      builder.build(section.pp),
      500,
      sharding.make_mesh(**vars(run.mesh)),
      open_split,
    )
    evaluator = find(section.type)(predict, data, **section.options)
    _, found[name] = next(iter(evaluator.run(params)))
  return found


def feature_table(folder: pathlib.Path, rows: fashion_study.Rows) -> str:
  """Markdown: what features are worth without fine-tuning."""
  known = json.loads((folder / BASELINES).read_text(encoding="utf-8"))
  knn = {name: [x["knn"] for x in found] for name, found in known.items()}
  probe = {name: [x["probe"] for x in found] for name, found in known.items()}
  knn["mae"] = fashion_study.last(rows["mae"], "knn/20nn")
  probe["mae"] = fashion_study.last(rows["mae"], "probe/acc@1")
  knn["supervised"] = fashion_study.last(rows["scratch-100"], "knn/20nn")
  titles = {
    "pixels": "pixels",
    "random": "random encoder",
    "mae": "masked autoencoder, no labels",
    "supervised": "supervised encoder, all labels",
  }
  lines = ["| features | n | 20-NN, % | linear probe, % |", "|---|--:|--:|--:|"]
  for name, title in titles.items():
    cells = [percent(x[name]) if name in x else "" for x in (knn, probe)]
    lines.append(f"| {title} | {len(knn[name])} | {' | '.join(cells)} |")
  return "\n".join(lines)


def percent(values) -> str:
  values = 100 * np.asarray(values)
  if len(values) == 1:
    return f"{values[0]:.2f}"
  return fashion_study.mean_sd(values, 2)


def label_table(rows: fashion_study.Rows) -> str:
  """Markdown: accuracy for each share of labels; seeds are paired.

  Shares of which there are no pairs of runs yet are left out.
  """
  lines = [
    "| labels | n | from scratch, % | pre-trained, % | difference |",
    "|--:|--:|--:|--:|--:|",
  ]
  for share in ssl_labels.EPOCHS:
    pair = [f"{name}-{share}" for name in ("scratch", "mae")]
    if not rows.keys() >= set(pair):
      continue
    scratch, mae = (fashion_study.last(rows[x], "test/acc@1") for x in pair)
    lines.append(
      f"| {share} % | {len(mae)} | {percent(scratch)} | {percent(mae)} | "
      f"{percent(mae - scratch)} |"
    )
  return "\n".join(lines)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("runs", type=pathlib.Path)
  parser.add_argument("--tables", action="store_true")
  args = parser.parse_args()
  file = args.runs / "ssl" / BASELINES
  if not args.tables:
    train(args.runs)
    if not file.exists():
      measure_baselines(file)
    return
  curves = fashion_study.DOCS / "curves"
  fashion_study.collect(args.runs, curves)
  shutil.copyfile(file, curves / "ssl" / BASELINES)
  rows = {
    row.name: [reader.read_metrics(seed) for seed in sorted(row.iterdir())]
    for row in sorted((curves / "ssl").iterdir())
    if row.is_dir()
  }
  document = fashion_study.DOCS / "ssl.md"
  text = document.read_text(encoding="utf-8")
  tables = {
    "features": feature_table(curves / "ssl", rows),
    "labels": label_table(rows),
  }
  for name, content in tables.items():
    text = fashion_study.insert(text, name, content)
  document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
  main()
