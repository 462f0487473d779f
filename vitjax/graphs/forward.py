"""The functions that are exported: one for each tower of a model."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from vitjax.graphs import pixels
from vitjax.plots import attention_maps

Input = Literal["pixels", "tensor"]
Tower = Literal["img", "txt"]


@dataclasses.dataclass(frozen=True)
class Forward:
  """A function of JAX with its parameters and the shapes of its inputs.

  Attributes:
    function: (variables, *inputs) -> output, or a tuple of several.
    variables: arrays that the function needs.
    inputs: shape and type of each input by its name, with a symbolic batch.
    outputs: names of the outputs.
  """

  function: Callable
  variables: Any
  inputs: Mapping[str, jax.ShapeDtypeStruct]
  outputs: tuple[str, ...]

  def __call__(self, *inputs: np.ndarray) -> np.ndarray:
    """Runs the function with JAX; returns the first output."""
    out = jax.jit(self.function)(self.variables, *inputs)
    return np.asarray(jax.tree.leaves(out)[0])


def of_images(
  trained, input: Input, dtype: str = "float32", *, attention: bool = False
) -> Forward:
  """From images to logits, or to the embedding of a model with two towers.

  Args:
    trained: from `vitjax.load`.
    input: "tensor": prepared images (b, h, w, c), float32. "pixels": uint8
      images (b, h, w, c) of any size, which the function prepares.
    dtype: type of the activations.
    attention: the attention rollout (b, gh, gw) is a second output.

  Raises:
    NotImplementedError: if the preprocessing has no counterpart.
    ValueError: if the model reads strips of patches.
  """
  tower = trained.model.towers().get("img", trained.model)
  if getattr(tower, "naflex", False):
    raise ValueError(
      "a graph cannot prepare images for a model with naflex=True, which reads "
      "strips of patches. Export the parameters, with --format=npz."
    )
  model = _with_dtype(trained.model, dtype)
  scale = trained.target_scale if trained.is_regression else None

  def function(variables, image):
    if input == "pixels":
      image = pixels.prepare(trained.preprocess, image, trained.image_size)
    if trained.has_two_towers:
      found, _, out = model.apply(variables, image, None)
    else:
      found, out = model.apply(variables, image)
      found = found.astype(jnp.float32)
      if scale is not None:
        mean, deviation = scale
        found = found * deviation[None] + mean[None]
    if attention:
      return found, attention_maps.rollout(model, out, image.shape)
    return found

  variables = _without(trained.variables, "txt")
  output = "logits"
  if trained.has_two_towers:
    output = "embedding"
  elif not trained.model.num_classes:
    output = "features"
  outputs = (output, "attention") if attention else (output,)
  return Forward(function, variables, _images(trained, input), outputs)


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
    ("embedding",),
  )


def preparation(trained) -> Forward:
  """From pixels to prepared images."""
  return Forward(
    lambda _, image: pixels.prepare(
      trained.preprocess, image, trained.image_size
    ),
    {},
    _images(trained, "pixels"),
    ("prepared",),
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
