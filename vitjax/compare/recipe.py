"""Recipes of runs: the config keys that change what a run learns."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from vitjax.compare.curves import Curves
from vitjax.config import plain

# Sections and keys that change results only by chance or rounding.
_SECTIONS = ("seed", "checkpoint", "report", "mesh", "sharding", "export_npz")
_KEYS = (
  "accumulation_steps",
  "pretrained_dir",
  "*.data_dir",
  "model.remat",
  "model.scan_layers",
  "evals.*.batch_size",
  "evals.*.every_*",
  "evals.*.optional",
)


def differences(
  reference: Curves, run: Curves, allowed: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
  """Config keys and eval sizes in which the recipes of two runs differ.

  Evals that only one of them has change nothing that is learned or compared,
  and are no difference.

  Args:
    reference: the reference run.
    run: the run.
    allowed: keys that may differ, with `*` for any characters.

  Returns:
    Lines "key: reference -> run" of what must not differ, and of what may.
  """
  found = {}
  if reference.config and run.config:
    names = {*reference.config.get("evals", {})} & {
      *run.config.get("evals", {})
    }
    lines = plain.differences(
      _essentials(reference.config, names), _essentials(run.config, names)
    )
    found = {line.partition(":")[0]: line for line in lines}
  for name, number in run.num_seen.items():
    old = reference.num_seen.get(name, number)
    if old != number:
      key = f"{name}/n_seen"
      found[key] = f"{key}: {old} -> {number}"
  wrong, right = [], []
  for key, line in found.items():
    is_allowed = any(fnmatch.fnmatchcase(key, pattern) for pattern in allowed)
    (right if is_allowed else wrong).append(line)
  return wrong, right


def check_one_recipe(references: Sequence[Curves]) -> None:
  """Raises ValueError if the references are of different recipes."""
  known = [curves for curves in references if curves.config]
  for other in known[1:]:
    changes, _ = differences(known[0], other)
    if changes:
      raise ValueError(
        f"the references {known[0].path} and {other.path} are of different "
        "recipes:\n  " + "\n  ".join(changes) + "\nGive references of one "
        "recipe, which differ in the seed only."
      )


def _essentials(given: Mapping[str, Any], evals: set[str]) -> dict[str, Any]:
  """The recipe of a config, flat, with the evals of these names."""
  given = plain.with_defaults(given)
  given["evals"] = {
    name: section
    for name, section in given.get("evals", {}).items()
    if name in evals
  }
  kept = {k: v for k, v in given.items() if k not in _SECTIONS}
  return {
    key: value
    for key, value in plain.flatten(kept).items()
    if not any(fnmatch.fnmatchcase(key, pattern) for pattern in _KEYS)
  }
