"""Rules of the `optim` section: which parameters are decayed, clipped, frozen.

Checks the rules, applies them, and describes them in the log of a run. The
optimizer and the description read the same masks.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from vitjax import models, trees
from vitjax.config import kinds
from vitjax.config.ranges import NonNegative, Positive, Range

# Factor of the learning rate from a layer to the one before it.
LayerDecay = Annotated[float, Range(gt=0, le=1)]
DecayScale = Literal["learning_rate", "schedule", "gradient"]
Multipliers = Sequence[Sequence[str | Positive]]


@dataclasses.dataclass(frozen=True)
class Roles:
  """Names of parameters, by how they are optimized.

  Attributes:
    decayed: names with weight decay; for LAMB, with a trust ratio.
    clipped: names with adaptive gradient clipping.
    factor: name -> factor of the learning rate; for stacked blocks, one factor
      for each. The factor of absent names is 1.
    frozen: names that are not trained; they are in none of the others.
  """

  decayed: frozenset[str]
  clipped: frozenset[str]
  factor: Mapping[str, float | np.ndarray]
  frozen: frozenset[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """The checked arguments of `make_optimizer`, with the same meaning.

  Raises:
    ValueError: for a value that is not allowed.
  """

  name: str
  learning_rate: Positive
  model: Any
  weight_decay: NonNegative
  decay_scale: DecayScale
  decay_params: Sequence[str]
  grad_clip_norm: Positive | None
  agc_clip: Positive | None
  agc_exclude: Sequence[str]
  learning_rate_multipliers: Multipliers
  layer_decay: LayerDecay | None
  freeze: Sequence[str]

  def __post_init__(self):
    errors = [
      kinds.problem(f"config.optim.{f.name}", getattr(self, f.name), f.type)
      for f in dataclasses.fields(self)
    ]
    if errors := [error for error in errors if error]:
      raise ValueError("\n".join(errors))
    if self.name == "lamb" and self.decay_scale != "learning_rate":
      raise ValueError(
        f"config.optim.decay_scale={self.decay_scale!r} must be "
        "'learning_rate' for lamb, whose trust ratio counts the decay too."
      )
    if not all(
      isinstance(rule, tuple | list)
      and len(rule) == 2
      and isinstance(rule[1], int | float)
      for rule in self.learning_rate_multipliers
    ):
      raise ValueError(
        "config.optim.learning_rate_multipliers="
        f"{self.learning_rate_multipliers!r} must be pairs (regex, factor)."
      )
    multiplied = [regex for regex, _ in self.learning_rate_multipliers]
    for option, regexes in (
      ("decay_params", self.decay_params),
      ("agc_exclude", self.agc_exclude),
      ("learning_rate_multipliers", multiplied),
      ("freeze", self.freeze),
    ):
      for regex in regexes:
        try:
          re.compile(str(regex))
        except re.error as e:
          raise ValueError(
            f"config.optim.{option} has {regex!r}, which is not a regular "
            f"expression: {e}."
          ) from e

  def roles(self, params: Any) -> Roles:
    """Applies the rules to parameters, given as arrays or abstract shapes.

    Raises:
      ValueError: if a rule matches none of them, or the layers of the model
        are not known.
    """

    def first_match(option, rules):
      matches = trees.match_rules(
        params, rules, every_leaf=False, what=f"config.optim.{option}"
      )
      return trees.flatten(matches)

    def matched(option):
      rules = [(regex, True) for regex in getattr(self, option)]
      return frozenset(first_match(option, rules))

    frozen = matched("freeze")
    decayed = clipped = frozenset()
    if self.weight_decay or self.name == "lamb":
      decayed = matched("decay_params")
    if self.agc_clip:
      clipped = frozenset(trees.names(params)) - matched("agc_exclude")
    factor = first_match(
      "learning_rate_multipliers", self.learning_rate_multipliers
    )
    if self.layer_decay is not None:
      if self.model is None:
        raise ValueError(
          "config.optim.layer_decay needs the model whose layers it counts: "
          "make_optimizer(..., model=model)."
        )
      shapes = {name: x.shape for name, x in trees.flatten(params).items()}
      layers, last = models.layers(self.model, shapes)
      factor = {
        name: factor.get(name, 1.0) * self.layer_decay ** (last - np.array(i))
        for name, i in layers.items()
      }
    return Roles(
      decayed=decayed - frozen,
      clipped=clipped - frozen,
      factor={k: v for k, v in factor.items() if k not in frozen},
      frozen=frozen,
    )

  def describe(self, params: Any) -> list[str]:
    """One line for each rule that applies to some parameters only.

    Raises:
      ValueError: as `roles` does.
    """
    roles = self.roles(params)
    sizes = {k: math.prod(x.shape) for k, x in trees.flatten(params).items()}

    def count(names: Collection[str]) -> str:
      arrays = "1 array" if len(names) == 1 else f"{len(names)} arrays"
      return f"{arrays}, {sum(sizes[name] for name in names):,} parameters"

    def span(values) -> str:
      ends = (min(map(np.min, values)), max(map(np.max, values)))
      return " to ".join(dict.fromkeys(f"{end:.4g}" for end in ends))

    lines = []
    if roles.decayed and self.weight_decay:
      of_adamw = self.weight_decay
      per_step = [self.weight_decay]
      if self.decay_scale == "schedule":
        of_adamw /= self.learning_rate
      elif self.decay_scale == "learning_rate":
        rate = self.learning_rate * self.weight_decay
        per_step = [rate * roles.factor.get(k, 1.0) for k in roles.decayed]
      if self.decay_scale == "gradient":
        how = f"adds {self.weight_decay:.4g} of them to the gradients"
      else:
        ratio = " times the trust ratio" if self.name == "lamb" else ""
        how = (
          f"subtracts {span(per_step)} of them{ratio} in a step at the peak, "
          f"as PyTorch's AdamW does with weight_decay={of_adamw:.4g}"
        )
      lines.append(f"Weight decay: {count(roles.decayed)}; {how}.")
      others = sizes.keys() - roles.decayed - roles.frozen
      lines.append(f"No weight decay: {count(others)}.")
    if roles.clipped:
      lines.append(f"Adaptive gradient clipping: {count(roles.clipped)}.")
    scaled = {k: v for k, v in roles.factor.items() if np.any(v != 1)}
    if scaled:
      lines.append(
        f"Learning rate times {span(scaled.values())}: {count(scaled)}."
      )
    if roles.frozen:
      lines.append(f"Frozen: {count(roles.frozen)}.")
    return lines
