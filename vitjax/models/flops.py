"""Floating-point operations of a model, by formula.

Counts matrix products and convolutions only, a multiplication and an addition
as two operations; a compiler counts a few per cent more.
"""

import math
from collections.abc import Callable
from typing import Any


def vit_forward(model: Any, image_shape: tuple[int, ...]) -> tuple[int, int]:
  """FLOPs of the forward pass of a Vision Transformer for one image.

  Args:
    model: a `models.vit.Model` without a ResNet in front.
    image_shape: (b, h, w, c).

  Returns:
    FLOPs of the patches, and of everything after them.
  """
  _, h, w, c = image_shape
  p, d = model.patch_size, model.width
  f = model.mlp_dim or 4 * d
  patches = (h // p) * (w // p)
  tokens = patches + model.has_class_token + model.num_registers
  stem = 2 * patches * p * p * c * d
  # Query, key, value and out; the MLP; scores, and weighted sums of values.
  # Differential attention has twice as many sums.
  sums = 2 if model.differential else 1
  block = 2 * tokens * (4 * d * d + 2 * d * f)
  block += 2 * tokens * tokens * d * (1 + sums)
  rest = model.depth * block
  if model.pool_type == "map":
    rest += 2 * (2 * patches * d * d + 2 * d * d + 2 * d * f)
    rest += 4 * patches * d
  rows = tokens if model.pool_type == "none" else 1
  width = d
  if model.rep_size:
    width = d if model.rep_size is True else model.rep_size
    rest += 2 * rows * d * width
  if model.num_classes:
    rest += 2 * rows * width * model.num_classes * (1 + model.distilled)
  return stem, rest


def vit_train(model: Any, image_shape: tuple[int, ...]) -> int:
  """FLOPs of a training step on (b, h, w, c): two gradients per product.

  The product of the patches has only one: the image needs no gradient.
  """
  stem, rest = vit_forward(model, image_shape)
  return image_shape[0] * (2 * stem + 3 * rest)


_TRAIN: dict[str, Callable[[Any, tuple[int, ...]], int]] = {
  "vitjax.models.vit": vit_train
}


def train(model: Any, image_shape: tuple[int, ...]) -> int | None:
  """FLOPs of a training step; None for models without a formula here."""
  if getattr(model, "stem", None) is not None:
    return None
  formula = _TRAIN.get(type(model).__module__)
  return formula(model, image_shape) if formula else None


def matrix_products(jaxpr: Any) -> int:
  """FLOPs of the matrix products and convolutions of a jaxpr.

  Counts the body of a scan as often as it runs.
  """
  total = 0
  for eqn in jaxpr.eqns:
    times = 1
    if eqn.primitive.name == "dot_general":
      (contracted, _), _ = eqn.params["dimension_numbers"]
      shape = eqn.invars[0].aval.shape
      out = eqn.outvars[0].aval.size
      total += 2 * out * math.prod(shape[i] for i in contracted)
    elif eqn.primitive.name == "conv_general_dilated":
      numbers = eqn.params["dimension_numbers"]
      kernel = eqn.invars[1].aval
      out_channels = kernel.shape[numbers.rhs_spec[0]]
      total += 2 * eqn.outvars[0].aval.size * kernel.size // out_channels
    elif eqn.primitive.name == "scan":
      times = eqn.params["length"]
    for value in eqn.params.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          total += times * matrix_products(inner)
  return total
