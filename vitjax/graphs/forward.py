"""The functions that are exported: one for each tower of a model."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from vitjax.graphs import pixels

Input = Literal["pixels", "tensor"]
Tower = Literal["img", "txt"]


@dataclasses.dataclass(frozen=True)
class Forward:
  """A function of JAX with its parameters and the shapes of its inputs.

  Attributes:
    function: (variables, *inputs) -> output.
    variables: arrays that the function needs.
    inputs: shape and type of each input by its name, with a symbolic batch.
    output: name of the output.
  """

  function: Callable
  variables: Any
  inputs: Mapping[str, jax.ShapeDtypeStruct]
  output: str

  def __call__(self, *inputs: np.ndarray) -> np.ndarray:
    """Runs the function with JAX."""
    return np.asarray(jax.jit(self.function)(self.variables, *inputs))


def of_images(trained, input: Input, dtype: str = "float32") -> Forward:
  """From images to logits, or to the embedding of a model with two towers.

  Args:
    trained: from `vitjax.load`.
    input: "tensor": prepared images (b, h, w, c), float32. "pixels": uint8
      images (b, h, w, c) of any size, which the function prepares.
    dtype: type of the activations.

  Raises:
    NotImplementedError: if the preprocessing has no counterpart.
  """
  model = _with_dtype(trained.model, dtype)
  scale = trained.target_scale if trained.is_regression else None

  def function(variables, image):
    if input == "pixels":
      image = pixels.prepare(trained.preprocess, image, trained.image_size)
    if trained.has_two_towers:
      return model.apply(variables, image, None)[0]
    logits = model.apply(variables, image)[0].astype(jnp.float32)
    if scale is not None:
      mean, deviation = scale
      logits = logits * deviation[None] + mean[None]
    return logits

  variables = _without(trained.variables, "txt")
  output = "logits"
  if trained.has_two_towers:
    output = "embedding"
  elif not trained.model.num_classes:
    output = "features"
  return Forward(function, variables, _images(trained, input), output)


def of_texts(trained, dtype: str = "float32") -> Forward:
  """From token ids to the embedding of a text, of length 1.

  Raises:
    ValueError: if the model does not read texts.
  """
  if not trained.has_two_towers:
    raise ValueError("this model reads images only: it has no text tower.")
  model = _with_dtype(trained.model, dtype)
  (text,) = model.towers()["txt"].example_inputs(trained.image_size)
  (batch,) = jax_export.symbolic_shape("batch")
  return Forward(
    lambda variables, text: model.apply(variables, None, text)[1],
    _without(trained.variables, "img"),
    {"text": jax.ShapeDtypeStruct((batch, text.shape[1]), text.dtype)},
    "embedding",
  )


def preparation(trained) -> Forward:
  """From pixels to prepared images."""
  return Forward(
    lambda _, image: pixels.prepare(
      trained.preprocess, image, trained.image_size
    ),
    {},
    _images(trained, "pixels"),
    "prepared",
  )


def _images(trained, input: Input) -> dict[str, jax.ShapeDtypeStruct]:
  if input == "tensor":
    (batch,) = jax_export.symbolic_shape("batch")
    shape = (batch, *trained.image_size, trained.channels)
    return {"image": jax.ShapeDtypeStruct(shape, np.float32)}
  batch, *size = jax_export.symbolic_shape("batch, height, width")
  if "resize" not in trained.preprocess:
    size = trained.image_size
  shape = (batch, *size, trained.channels)
  return {"image": jax.ShapeDtypeStruct(shape, np.uint8)}


def _with_dtype(model, dtype: str):
  return model.clone(dtype=dtype) if hasattr(model, "dtype") else model


def _without(variables, tower: Tower):
  return {
    name: {k: x for k, x in tree.items() if k != tower}
    for name, tree in variables.items()
  }
