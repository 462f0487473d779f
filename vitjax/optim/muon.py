"""Muon: matrices are updated by orthogonalised momentum, all else by Adam.

https://kellerjordan.github.io/posts/muon, and for the size of the updates
https://arxiv.org/abs/2502.16982, sec. 2.2.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from vitjax import trees
from vitjax.optim import agc

# The first and the last layers of a model, as published: embeddings of patches
# and of texts, the convolutions of a stem, the classifiers (DeiT's distilled
# models have two), the pixels of a masked autoencoder, and a projection to the
# features of a teacher.
_ENDS = re.compile(
  r"(.*/)?(embedding|conv_root|stem\w*|head(_dist)?|pixels|teacher_projection)"
  r"/(.*/)?kernel"
)


def matrix_axes(
  name: str, shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
  """The axes of a matrix's inputs and outputs; None if Adam updates it.

  The rows are the inputs of one output, as in `agc.unit_axes`, so the kernels
  of attention are matrices over all heads: (d, h, k) is d x hk, and (h, k, d)
  is hk x d. A convolution is a matrix over its window. Each of stacked blocks
  is a matrix of its own. Adam updates vectors, everything that is no kernel
  (biases, norms, position tables, tokens), the first and the last layer, and
  depthwise convolutions, whose channels are not mixed.

  Args:
    name: name of the parameter.
    shape: its shape.
  """
  if not re.fullmatch(r"(.*/)?kernel", name) or _ENDS.fullmatch(name):
    return None
  first = int(trees.is_stacked(name))
  block = shape[first:]
  rows = agc.unit_axes(name, block)
  is_depthwise = len(block) == 4 and block[2] == 1
  if len(rows) == len(block) or is_depthwise:
    return None
  split = first + len(rows)
  return tuple(range(first, split)), tuple(range(split, len(shape)))


def labels(params: Any, adam_params: Sequence[str] = ()) -> Any:
  """A tree that says "muon" or "adam" for each parameter.

  Args:
    params: parameters as arrays or abstract shapes.
    adam_params: regexes of further parameters for Adam.

  Raises:
    ValueError: if one of the regexes matches no parameter.
  """
  more = trees.match_rules(
    params,
    [(regex, True) for regex in adam_params],
    every_leaf=False,
    what="config.optim.adam_params",
  )
  more = trees.flatten(more)

  def label(name, x):
    by_adam = name in more or matrix_axes(name, x.shape) is None
    return "adam" if by_adam else "muon"

  return trees.map_with_names(label, params)


def make(
  adam: optax.GradientTransformation,
  adam_params: Sequence[str],
  consistent_rms: float | None,
  **options,
) -> optax.GradientTransformation:
  """Optax's Muon on the matrices, and `adam` on all other parameters.

  Args:
    adam: updates the others.
    adam_params: see `labels`.
    consistent_rms: root mean square of the updates of a matrix of full rank.
      None: an orthogonal matrix times sqrt(max(1, outputs / inputs)).
    **options: see `optax.contrib.scale_by_muon`.
  """

  def axes(name, update):
    found = matrix_axes(name, update.shape)
    assert found is not None  # see `labels`
    return found

  def scale(name, update):
    inputs, outputs = (
      math.prod(update.shape[i] for i in part) for part in axes(name, update)
    )
    if consistent_rms is None:
      return update * math.sqrt(max(1, outputs / inputs))
    return update * (math.sqrt(max(inputs, outputs)) * consistent_rms)

  muon = optax.chain(
    scale_by_muon(
      weight_dimension_numbers=lambda updates: trees.map_with_names(
        lambda name, x: MuonDimensionNumbers(*axes(name, x)), updates
      ),
      **options,
    ),
    optax.stateless(lambda updates, _: trees.map_with_names(scale, updates)),
  )
  return optax.partition(
    {"muon": muon, "adam": adam}, lambda params: labels(params, adam_params)
  )


def describe(params: Any, adam_params: Sequence[str] = ()) -> str:
  """How many parameters each of the two updates, for the start of a run."""
  names = trees.flatten(labels(params, adam_params))
  sizes = {k: math.prod(x.shape) for k, x in trees.flatten(params).items()}

  def count(wanted):
    chosen = [name for name, label in names.items() if label == wanted]
    total = sum(sizes[name] for name in chosen)
    return f"{len(chosen)} arrays, {total:,} parameters"

  return f"Muon: {count('muon')}. Adam: {count('adam')}."
