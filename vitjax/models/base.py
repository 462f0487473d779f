"""A base class of models, and the check of the contract.

Derive your own model from `ImageModel`, or define the methods of the contract.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vitjax.models.contract import METHODS, Model


class ImageModel(nn.Module):
  """A model of images; see `Model`."""

  @nn.nowrap
  def example_inputs(
    self, image_size: int | tuple[int, int], channels: int = 3
  ) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shape of one image."""
    return (example_image(image_size, channels),)

  @nn.nowrap
  def towers(self) -> Mapping[str, Model]:
    """No towers: {}."""
    return {}

  @nn.nowrap
  def layers(self) -> Sequence[str]:
    """Raises ValueError; override it for layer-wise learning-rate decay."""
    raise ValueError(
      f"config.optim.layer_decay: {type(self).__module__} does not say what "
      "its layers are. Remove layer_decay, or give its Model a method `layers` "
      "that returns a regex of parameter names for each layer, from the stem "
      "to the head."
    )


def stage_layers(depths: Sequence[int], ahead: str = "") -> list[str]:
  """Regexes for `layers`: each block of the modules stageI/blockJJ.

  Args:
    depths: number of blocks of each stage.
    ahead: regex of the modules that belong to the first block of a stage.
  """
  first = f"({ahead}|block00)" if ahead else "block00"
  return [
    rf"stage{i}/{f'block{b:02d}' if b else first}/.*"
    for i, depth in enumerate(depths)
    for b in range(depth)
  ]


def example_image(
  image_size: int | tuple[int, int], channels: int
) -> jax.ShapeDtypeStruct:
  """Shape (1, h, w, c) of an image of `image_size` pixels."""
  size = (image_size,) * 2 if isinstance(image_size, int) else image_size
  return jax.ShapeDtypeStruct((1, *size, channels), jnp.float32)


def check(cls: Any, name: str) -> None:
  """Raises ValueError if the class `Model` of a module breaks the contract.

  Args:
    cls: the class, or whatever else the module calls `Model`.
    name: dotted path of the module, for messages.
  """
  is_module = isinstance(cls, type) and issubclass(cls, nn.Module)
  absent = [x for x in METHODS if not callable(getattr(cls, x, None))]
  if not is_module or absent:
    what = (
      f"has no {', '.join(f'`{x}`' for x in absent)}"
      if is_module
      else f"is {cls!r}, not a flax.linen.Module"
    )
    raise ValueError(
      f"`Model` of {name!r} {what}. Derive it from "
      "vitjax.models.base.ImageModel, see docs/extend.md."
    )
