"""Sections of a report about records of runs: curves, configs, speed."""

from collections.abc import Sequence

import numpy as np

from vitjax.config import plain
from vitjax.evaluators import tables
from vitjax.plots import charts, grids
from vitjax.report.section import Picture, Section
from vitjax.run_folder.history import Record, differences, thin
from vitjax.run_folder.reader import TIMING_FILE

CONFUSION = (
  "Numbers of examples; the colour is the share of the row, which holds all "
  "examples of a class. Mistakes are off the diagonal."
)
_FIRST = ("train/loss", "train/learning_rate", "train/grad_norm")


def curves_section(records: Sequence[Record]) -> Section:
  """Curves of each metric, all runs in one figure."""
  section = Section("Curves")
  sizes = [record.batch_size for record in records]
  by_examples = None not in sizes and len({*sizes}) > 1
  label = "examples seen" if by_examples else "step"
  scales = sizes if by_examples else [1] * len(records)
  if by_examples:
    section.notes.append(
      "Over the examples seen, since the batch sizes differ: "
      + ", ".join(f"{r.name} {size}" for r, size in zip(records, sizes))
      + "."
    )
  for record in records:
    broken = [n for n, (_, y) in record.metrics.items() if not _finite(y)]
    if broken:
      section.notes.append(
        f"{record.name}: not finite at some steps: {', '.join(broken)}."
      )
    if not record.metrics:
      section.notes.append(f"{record.name} has recorded nothing yet.")
  for name in _metric_names(records):
    if "[" in name:  # of a single class: in the tables of the last values
      continue
    series = {}
    for record, scale in zip(records, scales):
      if name in record.metrics:
        x, y = thin(record.metrics[name])
        series[record.name] = (x * scale, y)
    is_rate = name == "train/learning_rate"
    names = [record.name for record in records]
    figure = charts.curves(
      name, series, label, names=names, log_scale=not is_rate
    )
    is_main = name in _FIRST or not name.startswith("train/")
    target = section.pictures if is_main else section.more
    target.append(Picture(f"curve_{name}", figure))
  return section


def _finite(values: np.ndarray) -> bool:
  return bool(np.isfinite(values).all())


def _metric_names(records: Sequence[Record]) -> list[str]:
  names = dict.fromkeys(name for r in records for name in r.metrics)
  rest = [name for name in names if name not in _FIRST]
  evals = [name for name in rest if not name.startswith("train/")]
  others = [name for name in rest if name.startswith("train/")]
  return [n for n in _FIRST if n in names] + evals + others


def values_section(records: Sequence[Record]) -> Section:
  """The last value of each metric; of single classes a table for each eval."""
  section = Section("Last values")
  section.notes += [
    f"{record.name}: {record.early_end}"
    for record in records
    if record.early_end
  ]
  rows = [["step", *(f"{record.last_step:,}" for record in records)]]
  for name in _metric_names(records):
    if "[" in name:
      continue
    cells = [name]
    for record in records:
      cells.append(_last_value(record, name))
    rows.append(cells)
  section.tables.append((["", *(record.name for record in records)], rows))
  for record in records:
    _add_classes(section, record, alone=len(records) == 1)
  return section


def _add_classes(section: Section, record: Record, *, alone: bool) -> None:
  """Adds the last metrics of the classes of each eval of a run."""
  evals: dict[str, dict[str, float]] = {}
  for name, (_, y) in record.metrics.items():
    group, _, metric = name.partition("/")
    evals.setdefault(group, {})[metric] = y[-1].item()
  for group, metrics in evals.items():
    title = group if alone else f"{record.name} {group}"
    found = tables.by_class(metrics)
    if rows := found.rows():
      section.tables.append(([title, *rows[0][1:]], rows[1:]))
    if found.confusion:
      matrix = np.array(found.confusion)
      others = "no class" if matrix[:, -1].any() else None
      figure = grids.confusion(title, matrix, found.classes, others=others)
      section.pictures.append(Picture(f"{title}_matrix", figure, CONFUSION))


def _last_value(record: Record, name: str) -> str:
  if name not in record.metrics:
    return "–"
  x, y = record.metrics[name]
  text = f"{y[-1]:.4f}" if 1e-3 <= abs(y[-1]) < 1e5 else f"{y[-1]:.3g}"
  facts = []
  if x[-1] != record.last_step:
    facts.append(f"step {x[-1]:,}")
  if seen := record.num_seen.get(name.partition("/")[0]):
    facts.append(f"n = {seen:,}")
  return f"{text} ({', '.join(facts)})" if facts else text


def config_section(records: Sequence[Record]) -> Section:
  """Keys of configs, versions and devices that differ."""
  section = Section("Config differences")
  if len(records) == 1:
    section.notes.append("Give two runs to compare their configs.")
    return section
  for what in ("config", "environment"):
    known = [record for record in records if getattr(record, what) is not None]
    for record in records:
      if record not in known:
        section.notes.append(f"{record.name} has no {what}.json.")
    if len(known) < 2:
      continue
    given = [getattr(record, what) for record in known]
    if what == "config":
      given = [plain.with_defaults(one) for one in given]
    rows = [[key, *x] for key, x in differences(given) if key != "command"]
    if rows:
      section.tables.append(([what, *(r.name for r in known)], rows))
    else:
      section.notes.append(f"{what}.json is the same in all runs.")
  return section


def speed_section(records: Sequence[Record]) -> Section:
  """Rates of the runs, and what they spent their time on."""
  section = Section("Speed")
  timed = [record for record in records if "goodput" in record.timing]
  for record in records:
    if record not in timed:
      section.notes.append(f"{record.name}: no {TIMING_FILE}.")
  if not timed:
    return section
  rows, spent = [], {}
  for record in timed:
    last = {name: y[-1] for name, (_, y) in record.timing.items()}
    seconds = {
      name.removeprefix("seconds/"): value
      for name, value in last.items()
      if name.startswith("seconds/")
    }
    total = sum(seconds.values())
    spent[record.name] = {k: v / total * 100 for k, v in seconds.items() if v}

    def median(name, form, record=record):
      if name not in record.timing:
        return "–"
      return form.format(np.median(record.timing[name][1]))

    rows.append(
      [
        record.name,
        median("examples_per_second", "{:,.0f}"),
        median("examples_per_second_per_device", "{:,.0f}"),
        median("step_seconds", "{:.4g}"),
        median("input_wait_share", "{:.1%}"),
        f"{last['goodput']:.1%}",
        f"{total / 60:,.1f}",
      ]
    )
  columns = ("images/s", "per device", "s/step", "input wait", "goodput", "min")
  section.tables.append((["", *columns], rows))
  series = {
    record.name: thin(record.timing["examples_per_second"])
    for record in timed
    if "examples_per_second" in record.timing
  }
  if series:
    figure = charts.curves(
      "images per second",
      series,
      "step",
      names=[record.name for record in records],
      log_scale=False,
    )
    section.pictures.append(Picture("speed", figure))
  figure = charts.shares("where the time went", spent, "% of the time")
  hint = (
    "Goodput is the share of the time spent in steps that counted, with all "
    "restarts; rates are medians."
  )
  section.pictures.append(Picture("time", figure, hint))
  return section
