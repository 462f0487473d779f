"""Model soups: averages of the weights of several trained models.

https://arxiv.org/abs/2203.05482. The members were fine-tuned from the same
weights, or are checkpoints of one run; between others an average is worthless.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from vitjax import trained, trees
from vitjax.config import places
from vitjax.models import batch_norm
from vitjax.trained import Trained

# Facts of one member that are not those of a soup.
_OWN_FACTS = ("checksums", "ema", "origin", "step")
# Facts of the description in which members must agree, and why.
_SHARED = {
  "class_names": "the outputs of their heads have other meanings",
  "loss": "their outputs have other meanings",
  "target_mean": "their outputs have other units",
  "target_deviation": "their outputs have other units",
  "tokenizer": "their texts have other tokens",
}


@dataclasses.dataclass(frozen=True)
class Member:
  """A model to average.

  Attributes:
    name: what the user gave: RUN, RUN@STEP, a file or a published name.
    model: the model.
  """

  name: str
  model: Trained

  @property
  def facts(self) -> dict[str, Any]:
    """Where its weights come from, for the description of the soup."""
    facts = {"model": self.name, "source": self.model.source}
    known = {k: v for k, v in self.model.metadata.items() if k in _OWN_FACTS}
    known.pop("checksums", None)
    return {**facts, **known}


def parse(name: str) -> tuple[str, int | str]:
  """The path and the step of RUN@STEP; of other names the latest step.

  Names of the hub may have an @, too: OWNER/REPO@REVISION.
  """
  path, _, step = name.rpartition("@")
  if path and places.of(path).is_dir():
    if step in ("latest", "best"):
      return path, step
    if step.isdecimal():
      return path, int(step)
  return name, "latest"


def read(names: Sequence[str], *, ema: bool = False, **options) -> list[Member]:
  """Loads the members and checks that they can be averaged.

  Args:
    names: see `Member`.
    ema: load the averaged parameters of run folders.
    **options: see `vitjax.load`.

  Raises:
    ValueError: if there are fewer than two members, one is given twice, or they
      do not fit one another; errors as in `vitjax.load`.
  """
  if len(names) < 2:
    raise ValueError(
      f"{len(names)} of at least 2 members are given. Give run folders, such "
      "as runs/a runs/b, or steps of one: runs/a@4000 runs/a@5000."
    )
  if twice := [name for name in names if names.count(name) > 1]:
    raise ValueError(f"{twice[0]} is given twice; give each member once.")
  members = []
  for name in names:
    path, step = parse(name)
    model = trained.load(path, step=step, ema=ema, **options)
    members.append(Member(name, model))
    check_fit(members[0], members[-1])
  return members


def check_fit(first: Member, other: Member) -> None:
  """Raises ValueError if two members cannot be averaged."""
  difference = trees.compare(first.model.params, other.model.params)
  if difference:
    raise ValueError(
      f"{other.name} does not fit {first.name}, whose parameters differ. "
      f"{difference.message(4)} Members of a soup have one architecture, one "
      "image size and one head."
    )
  a, b = first.model.metadata, other.model.metadata
  for key, why in _SHARED.items():
    if a.get(key) != b.get(key) and not _is_copy(key, a, b):
      raise ValueError(
        f"{other.name} does not fit {first.name}: {key} differs, so {why}. "
        "Average models that were trained on the same task."
      )
  if a["preprocess"] != b["preprocess"]:
    logging.warning(
      "%s prepares images by %s, %s by %s. The soup has the former.",
      first.name,
      a["preprocess"],
      other.name,
      b["preprocess"],
    )


def _is_copy(key: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
  """Whether two tokenizers differ by the folder of their vocabulary only."""
  if key != "tokenizer" or not (a.get(key) and b.get(key)):
    return False
  one, two = ({**x[key], "vocab": _content(x[key]["vocab"])} for x in (a, b))
  return one == two


def _content(file: str) -> bytes:
  with open(file, "rb") as f:
    return f.read()


def mean(trees_of_weights: Sequence[Any]) -> dict[str, Any]:
  """The mean of trees of arrays, summed in float64, as float32."""
  flat = [trees.flatten(tree) for tree in trees_of_weights]

  def average(name):
    total = sum(np.asarray(one[name], np.float64) for one in flat)
    return np.asarray(total / len(flat), np.float32)

  return trees.unflatten({name: average(name) for name in flat[0]})


@dataclasses.dataclass(frozen=True)
class Soup:
  """An average of members.

  Attributes:
    params: the averaged weights.
    members: the members in it.
    metric: metric that the members were chosen by, or None.
    value: the soup's value of it.
    values: name of a member -> its own value, the best first.
  """

  params: dict[str, Any]
  members: tuple[Member, ...]
  metric: str | None = None
  value: float | None = None
  values: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def metadata(self) -> dict[str, Any]:
    """The description of the first member, and what the soup is made of."""
    first = self.members[0].model
    about = {
      "kind": "uniform" if self.metric is None else "greedy",
      "members": [member.facts for member in self.members],
    }
    if self.metric is not None:
      about |= {
        "metric": self.metric,
        "value": self.value,
        "values": dict(self.values),
      }
    kept = {k: v for k, v in first.metadata.items() if k not in _OWN_FACTS}
    return {**kept, "soup": about}


def uniform(members: Sequence[Member]) -> Soup:
  """The mean of all members."""
  return Soup(mean([m.model.params for m in members]), tuple(members))


def greedy(
  members: Sequence[Member],
  metric: str,
  score: Callable[[Any], float],
  mode: str,
) -> Soup:
  """Adds one member after the other, if the metric of the mean does not fall.

  Args:
    members: the candidates; the best one alone is the first in the soup.
    metric: name of the metric.
    score: weights -> value of the metric.
    mode: whether the largest ("max") or the smallest ("min") value is the best.
  """
  sign = {"max": 1, "min": -1}[mode]
  values = {}
  for member in members:
    values[member.name] = score(member.model.params)
    logging.info("%s: %s %.4f", member.name, metric, values[member.name])
  ranked = sorted(members, key=lambda member: -sign * values[member.name])
  chosen, best = [ranked[0]], values[ranked[0].name]
  params = ranked[0].model.params
  for member in ranked[1:]:
    tried = mean([m.model.params for m in (*chosen, member)])
    value = score(tried)
    is_kept = sign * value >= sign * best
    logging.info(
      "With %s: %s %.4f, %s.",
      member.name,
      metric,
      value,
      "kept" if is_kept else "left out",
    )
    if is_kept:
      chosen, best, params = [*chosen, member], value, tried
  ordered = {member.name: values[member.name] for member in ranked}
  return Soup(dict(params), tuple(chosen), metric, best, ordered)


def has_statistics(params: Any) -> bool:
  """Whether weights have running statistics of batch normalisation."""
  return len(batch_norm.split(params)) > 1


def first_run(names: Sequence[str]) -> str:
  """The first member that is a run folder, whose config has evals.

  Raises:
    ValueError: if there is none.
  """
  for name in names:
    path, _ = parse(name)
    if places.of(path).is_dir():
      return os.fspath(path)
  raise ValueError(
    "--greedy names an eval of a run's config, and no member is a run folder. "
    "Give one, or leave --greedy out for the mean of all members."
  )
