r"""Measures the models of timm's comparison here, and beside timm.

  python -m scripts.pareto_study

writes docs/pareto/timm-12k.csv, .json and .png (`python -m vitjax.pareto`,
which describes them), docs/pareto/families.csv with the speed of the least
costly model of each family relative to timm's, and the section about them in
docs/performance.md. Both parts resume: what is in a file is not measured again.
Needs torch and timm (pip install timm) and the extra `plots`.

Forward passes in float32, both on all cores. In the second part vitjax and timm
take turns; each ratio is of one turn.
"""

import argparse
import csv
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

DOCS = pathlib.Path(__file__).parents[1] / "docs"
FOLDER = DOCS / "pareto"
TABLE = FOLDER / "timm-12k.json"
FAMILIES = FOLDER / "families.csv"
COLUMNS = (
  "family",
  "model",
  "img_size",
  "vitjax",
  "timm",
  "ratio",
  "turns",
  "timm version",
  "torch version",
)


def family(model: str) -> str:
  """The beginning of timm's names of a family: "swinv2", "seresnextaa"."""
  return re.match(r"[a-z]+(v2|3(?=_))?", model)[0]


def representatives(rows: Sequence[dict]) -> dict[str, dict]:
  """Family -> its row with the fewest multiplications."""
  found = {}
  for row in sorted(rows, key=lambda row: row["infer_gmacs"]):
    found.setdefault(family(row["model"]), row)
  return found


def timm_forward(
  model: str, img_size: int, batch_size: int
) -> Callable[[], Any]:
  """A function that computes the logits of a batch with timm."""
  import timm
  import torch

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  net = timm.create_model(model, pretrained=False).eval()
  image = torch.randn(batch_size, 3, img_size, img_size)

  def run():
    with torch.inference_mode():
      net(image)

  return run


def compare(row: dict, repetitions: int) -> dict[str, Any]:
  """A row of families.csv."""
  import jax

  from scripts.bench import turns
  from vitjax.pareto import benchmark

  name, size, batch = row["model"], row["img_size"], row["infer_batch_size"]
  theirs = timm_forward(name, int(size), batch)
  _, known = benchmark.expand(["@timm-12k"], {})
  candidate = benchmark.find(f"{name}@{size}", known, "float32")
  run = benchmark.compile_forward(candidate, batch)
  found = turns.seconds(
    {"vitjax": lambda: jax.block_until_ready(run()), "timm": theirs},
    repetitions,
  )
  speeds = {
    who: f"{batch / turns.summary(times)['median']:.4g}"
    for who, times in found.items()
  }
  ratios = turns.ratios(found, "vitjax", "timm")
  return {
    "family": family(name),
    "model": name,
    "img_size": size,
    **speeds,
    "ratio": f"{ratios['median']:.3g}",
    "turns": " ".join(f"{x:.3g}" for x in ratios["all"]),
    **{f"{x} version": metadata.version(x) for x in ("timm", "torch")},
  }


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--models", default="@timm-12k")
  parser.add_argument("--batch_size", type=int, default=1)
  parser.add_argument("--repetitions", type=int, default=3)
  args = parser.parse_args()
  FOLDER.mkdir(exist_ok=True)
  out = ",".join(str(TABLE.with_suffix(x)) for x in (".csv", ".png", ".json"))
  subprocess.run(
    [
      sys.executable,
      "-m",
      "vitjax.pareto",
      f"--models={args.models}",
      "--resume",
      "--dtype=float32",
      f"--batch_size={args.batch_size}",
      f"--repeats={args.repetitions}",
      f"--out={out}",
    ],
    check=True,
  )
  rows = json.loads(TABLE.read_text(encoding="utf-8"))["rows"]
  done = []
  if FAMILIES.exists():
    with open(FAMILIES, newline="", encoding="utf-8") as file:
      done = list(csv.DictReader(file))
  for name, row in representatives(rows).items():
    if name in {x["family"] for x in done}:
      continue
    done.append(compare(row, args.repetitions))
    print(*done[-1].values(), flush=True)
    with open(FAMILIES, "w", newline="", encoding="utf-8") as file:
      writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
      writer.writeheader()
      writer.writerows(done)
  subprocess.run([sys.executable, "-m", "scripts.update_docs"], check=True)


if __name__ == "__main__":
  main()
