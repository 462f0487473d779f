"""The ONNX graphs of a page, and what they answer to an image that it makes."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from vitjax.graphs import forward, onnx_export, onnx_file, proof, quantising
from vitjax.graphs.forward import Forward
from vitjax.graphs.onnx_export import Precision

# ITU-R BT.601, and the scale with which TensorFlow converts to uint8.
_GREY = (0.2989, 0.587, 0.114)
_GREY_SCALE = 255.5 / 255


def write_image_tower(
  trained, path: pathlib.Path, *, precision: Precision, tolerance: float | None
) -> proof.Proof:
  """Writes a graph from RGB pixels of any size to logits or an embedding.

  The attention rollout is a second output if the model has one.

  Args:
    trained: from `vitjax.load`.
    path: file to write.
    precision: type of the parameters and activations.
    tolerance: largest difference of outputs, relative to the largest output.

  Raises:
    ValueError: if the model cannot be converted, or the file differs from it by
      more than the tolerance.
  """
  if "resize" not in trained.preprocess:
    squeeze = trained.preprocess_of(resize=True)
    trained = dataclasses.replace(trained, preprocess=squeeze)
  function = forward.of_images(
    trained, "pixels", _dtype(precision), attention=has_attention(trained)
  )
  _write(_of_rgb(function, trained.channels), path)
  pictures = proof.photographs(dataclasses.replace(trained, channels=3))
  if precision == "int8":
    quantising.quantise(trained, path, "pixels", ())
  preparation = path.with_suffix(".preparation")
  _write(_of_rgb(forward.preparation(trained), trained.channels), preparation)
  prepare = onnx_file.Session(preparation)
  preparation.unlink()
  found = proof.of_pixels(trained, onnx_file.Session(path), prepare, pictures)
  proof.check(found, _limit(precision, tolerance))
  return found


def write_text_tower(
  trained, path: pathlib.Path, *, precision: Precision, tolerance: float | None
) -> proof.Proof:
  """Writes a graph from token ids to embeddings; as `write_image_tower`."""
  _write(forward.of_texts(trained, _dtype(precision)), path)
  if precision == "int8":
    quantising.quantise(trained, path, "tensor", ())
  found = proof.of_texts(trained, onnx_file.Session(path))
  proof.check(found, _limit(precision, tolerance))
  return found


def has_attention(trained) -> bool:
  """Whether the attention rollout of the model can be shown."""
  function = forward.of_images(trained, "tensor", attention=True)
  image = np.zeros((1, *trained.image_size, trained.channels), np.float32)
  try:
    jax.eval_shape(function.function, function.variables, image)
  except ValueError:
    return False
  return True


def sample(image_size: tuple[int, int]) -> np.ndarray:
  """The image on which a page compares its answer with the one written here.

  `worker.js` makes the same. It has the size of the model, so that few models
  resize it: rounded means of pixels would hide other differences.
  """
  y, x, c = np.indices((*image_size, 3))
  return ((7 * x + 13 * y + 101 * c) % 256).astype(np.uint8)


def _of_rgb(function: Forward, channels: int) -> Forward:
  """The same function of RGB images."""
  (shape,) = (x.shape for x in function.inputs.values())
  if channels == 3:
    return function

  def of_rgb(variables, image):
    return function.function(variables, _grey(image))

  inputs = {"image": jax.ShapeDtypeStruct((*shape[:-1], 3), np.uint8)}
  return dataclasses.replace(function, function=of_rgb, inputs=inputs)


def _grey(image: UInt8[Array, "b h w 3"]) -> UInt8[Array, "b h w 1"]:
  weights = jnp.array(_GREY, jnp.float32) * _GREY_SCALE
  grey = jnp.dot(image.astype(jnp.float32), weights)[..., None]
  return jnp.floor(grey).astype(jnp.uint8)


def _write(function: Forward, path: pathlib.Path) -> None:
  onnx_file.write(onnx_export.convert(function), path)
  if len(list(path.parent.glob(f"{path.name}*"))) > 1:
    raise ValueError(
      "the model has more than 1.9 GB, which no browser loads. Export it with "
      "--precision=float16, or export a smaller model."
    )


def _dtype(precision: Precision) -> str:
  return "float16" if precision == "float16" else "float32"


def _limit(precision: Precision, tolerance: float | None) -> float:
  return proof.TOLERANCE[precision] if tolerance is None else tolerance
