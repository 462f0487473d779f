"""Curves of a run that `vitjax.compare` compares, read from its record."""

import os
import pathlib

from vitjax.run_folder import history
from vitjax.run_folder.reader import METRICS_FILE


class Curves:
  """Training loss and eval metrics of a run, by name and step.

  Attributes:
    path: the run folder or the metrics.jsonl as given.
    metrics: name -> {step: value}, in the order of the steps.
    num_seen: name of an eval -> number of its examples.
    config: the resolved config, or None.
    batch_size: batch size of training, or None.
    early_end: why the run ended before its last step, or None.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path
    (record,) = history.read([path])
    self.metrics = {
      name: dict(zip(x.tolist(), y.tolist()))
      for name, (x, y) in record.metrics.items()
      if _is_compared(name)
    }
    self.num_seen = record.num_seen
    self.config = record.config
    self.batch_size = record.batch_size
    self.early_end = record.early_end

  @property
  def last_step(self) -> int:
    return max(max(steps) for steps in self.metrics.values())

  def describe(self) -> str:
    parts = [
      f"{name} at {len(steps)} steps from {min(steps):,} to {max(steps):,}"
      for name, steps in self.metrics.items()
    ]
    return f"{self.path} has {', '.join(parts) or 'no metrics yet'}"


def _is_compared(name: str) -> bool:
  if name.endswith(("/l2", "_l2")):
    return False  # the penalty that a probe chose does not measure its quality
  return name == "train/loss" or not name.startswith("train/")


def expand(path: str | os.PathLike) -> list[pathlib.Path]:
  """The run itself, or the runs in a folder of runs."""
  path = pathlib.Path(path)
  if not path.is_dir() or (path / METRICS_FILE).exists():
    return [path]
  runs = sorted(file.parent for file in path.glob(f"*/{METRICS_FILE}"))
  if not runs:
    raise FileNotFoundError(
      f"no {METRICS_FILE} in {path} or in its folders: give a run folder, or a "
      "folder of run folders."
    )
  return runs
