"""The class of a model for each class of a data set.

A class id has a meaning within one data set only. Across data sets, classes
are matched by their names; where that is impossible, the eval is refused.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from vitjax.data import pipeline
from vitjax.data.pp import builder
from vitjax.data.sources.source import Source


@dataclasses.dataclass(frozen=True)
class Classes:
  """The classes of a model.

  Attributes:
    data: the data set that it was trained on, if known.
    num_classes: width of its head.
    names: class names by id, if known.
  """

  data: str | None
  num_classes: int
  names: tuple[str, ...] | None = None

  def ids_of(self, source: Source, *, same: bool = False) -> np.ndarray:
    """The model's class id of each class of a data set.

    Args:
      source: the data set.
      same: the class ids are known to be those of the model.

    Raises:
      ValueError: if a class is not one of the model's, or cannot be matched.
    """
    count = source.num_classes
    if count is None:
      raise ValueError(f"{source.data!r} has no class labels.")
    if count > self.num_classes:
      raise ValueError(
        f"{source.data} has {count} classes, but the model only "
        f"{self.num_classes}: set config.num_classes, or evaluate on other "
        "data."
      )
    if not same and self.names and source.class_names:
      return _by_name(self.names, source.class_names, source.data)
    if same or source.data == self.data:
      return np.arange(count)
    who = "the model" if not self.names else repr(source.data)
    raise ValueError(
      f"{source.data!r} is not the data set that the model was trained on"
      f"{f' ({self.data!r})' if self.data else ''}, and the class names of "
      f"{who} are unknown, so labels might mean something else. If class ids "
      "are the same, set same_classes=True."
    )

  def find(self, names: Sequence[str]) -> np.ndarray:
    """Class ids of some names of the model's classes.

    Raises:
      ValueError: if the model has no such class, or no names.
    """
    known = self.names or ()
    if missing := [name for name in names if name not in known]:
      raise ValueError(
        f"{missing[0]!r} is not the name of a class of the model. It has: "
        f"{', '.join(known[:10]) or 'no names'}"
        f"{', ...' if len(known) > 10 else ''}."
      )
    return np.unique([known.index(name) for name in names])


def _by_name(
  own: Sequence[str], theirs: Sequence[str], data: str
) -> np.ndarray:
  """The model's class id of each class of `data`, whose names are `theirs`."""
  if own == theirs:
    return np.arange(len(own))
  count = Counter(own)
  unknown = [name for name in theirs if count[name] != 1]
  if unknown:
    first = ", ".join(map(repr, unknown[:5]))
    reason = "is not a class" if not count[unknown[0]] else "is several classes"
    raise ValueError(
      f"{len(unknown)} of the {len(theirs)} classes of {data!r} cannot be "
      f"found among the {len(own)} of the model "
      f"({', '.join(map(repr, own[:3]))}, ...): {first}"
      f"{', ...' if len(unknown) > 5 else ''} {reason} there. If class ids "
      "are the same and only the names differ, set same_classes=True."
    )
  id_of = {name: i for i, name in enumerate(own)}
  return np.array([id_of[name] for name in theirs])


def present(source: Source) -> np.ndarray:
  """The class ids of a data set that occur in the split, in order."""
  batches = pipeline.eval_batches(
    source, builder.build("keep('label')"), batch_size=1024
  )
  ids = np.unique(np.concatenate([b["label"][b["mask"]] for b in batches]))
  return ids[ids >= 0]  # an unknown class is -1
