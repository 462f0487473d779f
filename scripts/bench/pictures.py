r"""Draws JSON lines of the benchmarks into ratios.png and growth.png.

python -m scripts.bench.pictures bench.jsonl docs/performance
"""

import json
import pathlib
import sys

from matplotlib import ticker

from vitjax.plots import figures

# (benchmark, contestant, baseline, what the bar is called)
_BARS = (
  ("forward", "timm", "linen", "forward pass: timm / Linen"),
  ("forward", "vitjax", "linen", "forward pass: vitjax / Linen"),
  ("train_step", "timm", "linen", "train step: timm / Linen"),
  ("train_step", "vitjax", "linen", "train step: vitjax / Linen"),
  ("input", "recipe", "timm", "input with RandAugment: vitjax / timm"),
  ("evaluation", "evaluation", "forward", "evaluation / forward pass"),
)
_LINES = {
  "variant": "model, 224 px, batch 8",
  "image_size": "image size, S/16, batch 8",
  "batch_size": "batch size, S/16, 224 px",
}


def ratios(rows: list[dict]) -> figures.Figure:
  """Medians as bars, spreads as lines."""
  by_name = {(x["benchmark"], x["contestant"]): x for x in rows}

  def draw(axes):
    for y, (benchmark, name, baseline, _) in enumerate(_BARS):
      measured = by_name[benchmark, name][f"times_{baseline}"]
      ours = figures.COLORS[name == "timm"]
      axes.barh(y, measured["median"], 0.7, color=ours)
      axes.plot([min(measured["all"]), max(measured["all"])], [y, y], "k")
    axes.axvline(1, color="k", linewidth=0.8)
    axes.set_yticks(range(len(_BARS)), [label for *_, label in _BARS])
    axes.invert_yaxis()
    axes.set_xlabel("times as fast")

  return figures.Figure("Speed", draw, (6.4, 2.6))


def growth(rows: list[dict]) -> figures.Figure:
  """Images of a train step a second, as one of three things grows."""
  rows = [x for x in rows if x["benchmark"] == "growth"]

  def draw(*panels):
    for axes, (name, label) in zip(panels, _LINES.items()):
      some = [x for x in rows if x["contestant"].startswith(name)]
      x = range(len(some))
      medians = [row["images_per_second"]["median"] for row in some]
      spread = [row["images_per_second"]["all"] for row in some]
      axes.plot(x, medians, marker="o", markersize=3)
      axes.fill_between(x, *map(list, zip(*map(_ends, spread))), alpha=0.25)
      axes.set_xticks(x, [str(row[name]) for row in some])
      axes.set_xlabel(label)
      axes.set_yscale("log")
      axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
      axes.yaxis.set_major_formatter(
        ticker.FuncFormatter(lambda y, _: f"{y:g}")
      )
      axes.yaxis.set_minor_locator(ticker.NullLocator())
      axes.grid(True)
    panels[0].set_ylabel("images a second")

  return figures.Figure("Growth", draw, (8, 2.6), panels=len(_LINES))


def _ends(values: list[float]) -> tuple[float, float]:
  return min(values), max(values)


def main(source: str, folder: str) -> None:
  """Reads JSON lines, of which a later one counts, and writes the pictures."""
  text = pathlib.Path(source).read_text(encoding="utf-8")
  rows = [json.loads(line) for line in text.splitlines()]
  rows = list({(x["benchmark"], x["contestant"]): x for x in rows}.values())
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  for draw in (ratios, growth):
    path = pathlib.Path(folder) / f"{draw.__name__}.png"
    path.write_bytes(draw(rows).png())


if __name__ == "__main__":
  main(*sys.argv[1:])
