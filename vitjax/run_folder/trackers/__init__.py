"""The table of trackers: where a run's metrics are shown besides its record.

Importing it loads none of them. A tracker is a class `Tracker` with

  Tracker(folder, start_step, **options)
  write(step, values): `{name: int or float}` of a step; called in order of
    steps, and several times for one step
  flush(): returns when nothing of it would be lost if the process were killed
  close()

`folder` is the run folder, in which `config.json` and `environment.json` lie
already. `start_step` is the step of the checkpoint that the run resumes from:
later steps, which an earlier process may have written, come again. 0 means that
the run starts from nothing.

The options are the other parameters of its signature; a config sets them in
`report.trackers`. A tracker may fail or hang wherever it likes: `background`
calls it.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitjax.config import messages

TRACKERS = {
  "tensorboard": "vitjax.run_folder.trackers.tensorboard",
  "csv": "vitjax.run_folder.trackers.spreadsheet",
  "wandb": "vitjax.run_folder.trackers.weights_and_biases",
  "mlflow": "vitjax.run_folder.trackers.ml_flow",
}

# What the run passes to a tracker itself.
FILLED = ("self", "folder", "start_step")


def find(name: str) -> type:
  """The tracker class called `name` in the table, or in a dotted module.

  Raises:
    ValueError: if there is none.
  """
  is_dotted = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name)
  module = TRACKERS.get(name, name if is_dotted else None)
  if module is None:
    hint = messages.did_you_mean(name, TRACKERS)
    raise ValueError(
      f"{name!r} is not a tracker.{hint} Known: {', '.join(TRACKERS)}, and "
      "dotted paths of modules, such as my_package.my_tracker."
    )
  try:
    found = importlib.import_module(module)
  except ImportError as e:
    raise ValueError(f"tracker {name!r} cannot be imported: {e}") from e
  if not isinstance(getattr(found, "Tracker", None), type):
    raise ValueError(f"module {name!r} has no class Tracker.")
  return found.Tracker


def sections(chosen: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
  """Name -> options, of names alone or of names with their options."""
  return dict(
    chosen if isinstance(chosen, Mapping) else {name: {} for name in chosen}
  )
