"""Exports a trained model as ONNX, and keeps no file that says other things."""

import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any, Literal

from vitjax.config import extras
from vitjax.graphs import facts, forward, onnx_file, proof, quantising

Precision = Literal["float32", "float16", "int8"]


def export(
  trained,
  out: pathlib.Path,
  *,
  input: forward.Input = "tensor",
  tower: forward.Tower = "img",
  precision: Precision = "float32",
  images: Sequence[str] = (),
  calibrate: Sequence[str] = (),
  tolerance: float | None = None,
) -> proof.Proof:
  """Writes one tower of a model, and compares it with the model.

  Args:
    trained: from `vitjax.load`.
    out: file to write.
    input: "tensor": prepared images; "pixels": uint8 images of any size.
    tower: "img" or, of a model with two towers, "txt".
    precision: type of the parameters and activations. "int8" quantises the
      products of matrices, with `calibrate` also convolutions.
    images: files to compare on; by default photographs of scikit-learn.
    calibrate: images that the ranges of int8 activations are measured on. By
      default they are measured on each input.
    tolerance: largest difference of outputs, relative to the largest output.

  Raises:
    ValueError: if the model cannot be converted, or the file differs by more
      than the tolerance; it is then removed.
    ImportError: if the packages of `vitjax[onnx]` are not installed.
  """
  with extras.needed("onnx", "ONNX files"):
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

  dtype = "float16" if precision == "float16" else "float32"
  with tempfile.TemporaryDirectory(dir=out.parent) as folder:
    path = pathlib.Path(folder) / out.name
    model = _convert(_forward(trained, input, tower, dtype))
    onnx_file.describe(
      model, facts.of(trained, "onnx", input, tower, precision)
    )
    onnx_file.write(model, path)
    del model
    if precision == "int8":
      samples = proof.photographs(trained, calibrate) if calibrate else ()
      quantising.quantise(trained, path, input, samples)
    found = _prove(trained, path, input, tower, images)
    limit = proof.TOLERANCE[precision] if tolerance is None else tolerance
    proof.check(found, limit)
    for file in pathlib.Path(folder).iterdir():
      os.replace(file, out.parent / file.name)
  return found


def _forward(trained, input, tower, dtype) -> forward.Forward:
  if tower == "txt":
    return forward.of_texts(trained, dtype)
  return forward.of_images(trained, input, dtype)


def _convert(function: forward.Forward) -> Any:
  try:
    return onnx_file.convert(function)
  except NotImplementedError as e:
    raise ValueError(
      f"this model cannot be converted to ONNX: {e}. Export its weights "
      "(--format=npz), or use --format=stablehlo."
    ) from None


def _prove(trained, path, input, tower, images) -> proof.Proof:
  run = onnx_file.Session(path)
  if tower == "txt":
    return proof.of_texts(trained, run)
  pictures = proof.photographs(trained, images)
  if input == "tensor":
    return proof.of_tensors(trained, run, pictures)
  preparation = path.with_suffix(".preparation")
  onnx_file.write(_convert(forward.preparation(trained)), preparation)
  prepare = onnx_file.Session(preparation)
  preparation.unlink()
  return proof.of_pixels(trained, run, prepare, pictures)
