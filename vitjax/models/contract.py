"""The contract of models: the methods that the rest of vitjax calls."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax


@runtime_checkable
class Model(Protocol):
  """A `flax.linen.Module` with these methods.

  `init` and `apply` are those of Linen. What a call takes and returns is in
  the docstring of `vitjax.models`.
  """

  def init(self, rngs: Any, *inputs: Any) -> Any:
    """Makes {"params": parameters} for inputs of these shapes.

    With batch normalisation also the running statistics, in the collection
    `batch_norm.STATISTICS`.
    """
    ...

  def apply(self, variables: Any, *inputs: Any, **kwargs: Any) -> Any:
    """Calls the model with what `init` returns."""
    ...

  def clone(self, **fields: Any) -> "Model":
    """A copy with other options."""
    ...

  def __call__(self, *inputs: Any, **kwargs: Any) -> Any:
    """Called within another module; returns outputs and named arrays."""
    ...

  def example_inputs(
    self, image_size: int | tuple[int, int], channels: int = 3
  ) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shapes of the inputs of `init`, with a batch of 1.

    Args:
      image_size: height and width in pixels, or the side of a square; a model
        that takes no images ignores both arguments.
      channels: channels of the image.
    """
    ...

  def towers(self) -> "Mapping[str, Model]":
    """The image tower as "img" and the text tower as "txt", or nothing.

    The names are the first parts of their parameters' names. A model that is
    no pair of towers returns {}.
    """
    ...

  def layers(self) -> Sequence[str]:
    """One regex of whole parameter names for each layer, in order.

    The first layer is the stem, the last is all that follows the blocks.
    Stacked blocks match one regex for each block.

    Raises:
      ValueError: if the model does not say.
    """
    ...


METHODS = tuple(name for name in vars(Model) if not name.startswith("_"))
