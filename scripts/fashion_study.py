r"""Tables and pictures of docs/fashion_mnist.md from the records of its runs.

  python -m scripts.fashion_study

reads docs/curves/STUDY/ROW/SEED/metrics.jsonl, draws docs/fashion_mnist/*.png
and writes the tables between the marks in docs/fashion_mnist.md. Records get
there from finished runs in RUNS/STUDY/ROW/SEED by

  python -m scripts.fashion_study --collect RUNS

Needs the extra `plots`.
"""

import argparse
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scripts import scaling_law
from vitjax.run_folder import reader

DOCS = pathlib.Path(__file__).parents[1] / "docs"

STUDIES = (
  "baselines",
  "sam",
  "scaling_rates",
  "scaling",
  "finetuning_rates",
  "finetuning",
  "best",
  "flexivit",
)
# Rows of the tables and what they are called there.
BASELINES = {
  "ours": "ours",
  "no_aug": "without RandAugment and mixup",
  "learned": "learned position embedding",
  "tok": "class token, no average pooling",
  "linear": "linear head",
  "original": "original",
}
SAM = {
  "adam": "AdamW, 3 epochs",
  "sam_half": "SAM, 1.5 epochs",
  "sam": "SAM, 3 epochs",
}
SCALING_RATES = {
  f"{family}_{size}": f"{family}, size {size}"
  for family in ("vit", "convnext")
  for size in (2, 3)
}
FINETUNING = {
  "scratch": "from scratch",
  "finetune": "from the weights of the other classes",
}
BEST = {
  "vit": "alone, from the labels",
  "taught": "from the ResNet's probabilities",
}
FLEXIVIT = {
  "flexi": "4, 7 and 14 in turn",
  "patch4": "4",
  "patch7": "7",
  "patch14": "14",
}

# step -> the values of one metric, one for each seed
Curves = dict[int, list[float]]
Rows = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]


def collect(runs: pathlib.Path, curves: pathlib.Path) -> None:
  """Copies of each run what is needed here and by `vitjax.compare`."""
  for file in sorted(runs.glob("*/*/*/metrics.jsonl")):
    folder = curves / file.parent.relative_to(runs)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.json", "metrics.jsonl"):
      shutil.copyfile(file.parent / name, folder / name)


def read_rows(folder: pathlib.Path) -> dict[str, list[list[dict[str, Any]]]]:
  """Row -> the record of each seed."""
  return {
    row.name: [reader.read_metrics(seed) for seed in sorted(row.iterdir())]
    for row in sorted(folder.iterdir())
  }


def curves_of(seeds: Sequence[Sequence[Mapping]], metric: str) -> Curves:
  """The metric at the steps at which every seed has it.

  Raises:
    ValueError: if there is no such step.
  """
  found: Curves = {}
  for rows in seeds:
    for row in rows:
      if metric in row:
        found.setdefault(row["step"], []).append(row[metric])
  common = {k: v for k, v in found.items() if len(v) == len(seeds)}
  if not common:
    raise ValueError(f"there is no step at which all seeds have {metric}.")
  return dict(sorted(common.items()))


def last(seeds: Sequence[Sequence[Mapping]], metric: str) -> np.ndarray:
  """The last value of the metric, one for each seed."""
  return np.array(list(curves_of(seeds, metric).values())[-1])


def mean_sd(values: np.ndarray, digits: int) -> str:
  """ "90.12 ± 0.34", with the standard deviation of a sample."""
  return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def table(rows: Rows, names: Mapping[str, str], against: str) -> str:
  """Markdown: accuracy and loss of each row, and its distance to one.

  Seeds are paired in the distance: equal seeds draw equal batches.
  """
  lines = [
    "| | n | steps | test top-1, % | difference | test loss |",
    "|---|--:|--:|--:|--:|--:|",
  ]
  base = 100 * last(rows[against], "test/acc@1")
  for row, title in names.items():
    accuracy = 100 * last(rows[row], "test/acc@1")
    steps = list(curves_of(rows[row], "test/acc@1"))[-1]
    difference = ""
    if row != against:
      gap = accuracy - base
      difference = f"{gap.mean():+.2f} ± {np.std(gap, ddof=1):.2f}"
    lines.append(
      f"| {title} | {len(accuracy)} | {steps:,} | {mean_sd(accuracy, 2)} | "
      f"{difference} | {mean_sd(last(rows[row], 'test/loss'), 4)} |"
    )
  return "\n".join(lines)


def grid_table(rows: Rows, metric: str, methods: Mapping[str, str]) -> str:
  """Markdown: the mean of the last values; a column per learning rate.

  Rows of the study are called METHOD-RATE; not all need to be there.
  """
  rates = sorted({row.rpartition("-")[2] for row in rows}, key=float)
  lines = [
    f"| {metric} | {' | '.join(f'{float(r):g}' for r in rates)} |",
    f"|---|{'--:|' * len(rates)}",
  ]
  for method, title in methods.items():
    seeds = [rows.get(f"{method}-{rate}") for rate in rates]
    cells = [f"{last(x, metric).mean():.3f}" if x else "" for x in seeds]
    lines.append(f"| {title} | {' | '.join(cells)} |")
  return "\n".join(lines)


def patch_table(rows: Rows, names: Mapping[str, str]) -> str:
  """Markdown: accuracy of each row at each patch size of its evals."""
  sizes = (4, 7, 14)
  lines = [
    f"| trained at patches of | n | {' | '.join(map(str, sizes))} |",
    f"|---|--:|{'--:|' * len(sizes)}",
  ]
  for row, title in names.items():
    metrics = [f"val/patch{size}/acc@1" for size in sizes]
    cells = [mean_sd(100 * last(rows[row], metric), 2) for metric in metrics]
    lines.append(f"| {title} | {len(rows[row])} | {' | '.join(cells)} |")
  return "\n".join(lines)


def draw(
  rows: Rows, names: Mapping[str, str], file: pathlib.Path, batch: Mapping
) -> None:
  """Test accuracy, training loss, and the accuracy of each seed at the end.

  Lines are means over seeds, bands go from the lowest to the highest. Training
  loss is smoothed over a sixth of the records.

  Args:
    rows: see `read_rows`.
    names: of the rows that are drawn.
    file: PNG.
    batch: examples per step of each row.
  """
  import matplotlib

  matplotlib.use("agg")
  from matplotlib import pyplot

  figure, (left, middle, right) = pyplot.subplots(
    1, 3, figsize=(12, 3.6), layout="constrained"
  )

  def band(axes, row, metric, factor=1, smoothed=False):
    curves = curves_of(rows[row], metric)
    span = max(1, len(curves) // 6) if smoothed else 1
    thousands = np.array(list(curves)) * batch[row] / 1000
    values = smooth(factor * np.array(list(curves.values())), span)
    (line,) = axes.plot(thousands, values.mean(1), lw=1.5)
    axes.fill_between(
      thousands,
      values.min(1),
      values.max(1),
      color=line.get_color(),
      alpha=0.12,
      lw=0,
    )
    return values.mean(1)

  lowest = []
  for place, row in enumerate(names):
    lowest.append(band(left, row, "test/acc@1", factor=100)[0])
    band(middle, row, "train/loss", smoothed=True)
    accuracy = 100 * last(rows[row], "test/acc@1")
    color = left.lines[-1].get_color()
    right.plot(accuracy, [place] * len(accuracy), "o", color=color, alpha=0.6)
    right.plot(accuracy.mean(), place, "|", color=color, ms=18, mew=2)
  left.set(ylabel="test top-1, %", ylim=(min(lowest) - 1, None))
  middle.set(ylabel="training loss, smoothed", ylim=(0, 1.8))
  right.set(xlabel="test top-1 at the end, %", yticks=range(len(names)))
  right.set_yticklabels(names.values())
  right.set_ylim(len(names) - 0.5, -0.5)
  for axes in (left, middle):
    axes.set_xlabel("training images seen, thousands")
  for axes in (left, middle, right):
    axes.grid(True, alpha=0.25)
  for label, line in zip(right.get_yticklabels(), left.lines):
    label.set_color(line.get_color())
  figure.savefig(file, dpi=90)
  pyplot.close(figure)


def smooth(values: np.ndarray, span: int) -> np.ndarray:
  """Mean over the `span` records before each, and itself, along axis 0."""
  sums = np.cumsum(np.pad(values, ((span, 0), (0, 0))), axis=0)
  counts = np.minimum(np.arange(len(values)) + 1, span)[:, None]
  return (sums[span:] - sums[:-span]) / counts


def insert(text: str, name: str, content: str) -> str:
  """Replaces what is between the marks of table `name`.

  Raises:
    ValueError: if the text does not have the marks once.
  """
  start, end = f"<!-- table {name} -->\n", "<!-- end -->"
  pattern = f"({re.escape(start)}).*?({end})"
  text, count = re.subn(
    pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL
  )
  if count != 1:
    raise ValueError(f"the document has {count} marks {start.strip()!r}.")
  return text


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--collect", type=pathlib.Path, metavar="RUNS")
  args = parser.parse_args()
  curves, pictures = DOCS / "curves", DOCS / "fashion_mnist"
  if args.collect:
    collect(args.collect, curves)
  pictures.mkdir(exist_ok=True)

  rows = {study: read_rows(curves / study) for study in STUDIES}
  rows["sam"]["adam"] = rows["baselines"]["no_aug"]
  runs = [
    scaling_law.read(folder, "test/loss")
    for folder in sorted(curves.glob("scaling/*/*"))
  ]
  laws = scaling_law.fit_families(runs)
  tables = {
    "baselines": table(rows["baselines"], BASELINES, "ours"),
    "sam": table(rows["sam"], SAM, "adam"),
    "scaling rates": grid_table(
      rows["scaling_rates"], "val/loss", SCALING_RATES
    ),
    "scaling": scaling_law.table(runs, laws, "test/loss"),
    "fine-tuning rates": grid_table(
      rows["finetuning_rates"], "test/acc@1", FINETUNING
    ),
    "fine-tuning": table(rows["finetuning"], FINETUNING, "scratch"),
    "best": table(rows["best"], BEST, "vit"),
    "flexivit": patch_table(rows["flexivit"], FLEXIVIT),
  }
  document = DOCS / "fashion_mnist.md"
  text = document.read_text(encoding="utf-8")
  for name, content in tables.items():
    text = insert(text, name, content)
  document.write_text(text, encoding="utf-8")
  draw(
    rows["baselines"],
    BASELINES,
    pictures / "baselines.png",
    {row: 256 if row == "original" else 64 for row in BASELINES},
  )
  draw(rows["sam"], SAM, pictures / "sam.png", dict.fromkeys(SAM, 64))
  draw(
    rows["finetuning"],
    FINETUNING,
    pictures / "fine_tuning.png",
    dict.fromkeys(FINETUNING, 64),
  )
  scaling_law.draw(runs, laws, "test/loss", pictures / "scaling.png")


if __name__ == "__main__":
  main()
