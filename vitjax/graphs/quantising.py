"""Eight-bit integers in ONNX files, by ONNX Runtime's own tools."""

import pathlib
from collections.abc import Sequence

import numpy as np

from vitjax.config import extras
from vitjax.graphs.forward import Input


def quantise(
  trained, path: pathlib.Path, input: Input, samples: Sequence[np.ndarray]
) -> None:
  """Replaces the file by one with int8 weights.

  Args:
    trained: from `vitjax.load`.
    path: the file, in float32.
    input: what the file takes.
    samples: pixels of images that the ranges of activations are measured on.
      Without any, ranges are measured on each input, and only products of
      matrices are quantised.
  """
  with extras.needed("onnx", "ONNX files"):
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

  whole = path.with_suffix(".float32")
  # Symbolic shapes are not needed, and fail with --input=pixels (onnxruntime
  # 1.32: sizes that are lists and numbers).
  shape_inference.quant_pre_process(path, whole, skip_symbolic_shape=True)
  if len(samples):
    reader = _Reader(trained, input, samples)
    assert isinstance(reader, quantization.CalibrationDataReader)
    quantization.quantize_static(
      whole,
      path,
      reader,
      op_types_to_quantize=["Conv", "Gemm", "MatMul"],
      per_channel=True,
      # Its int32 biases fail beside scales of channels (onnxruntime 1.32).
      extra_options={
        "QuantizeBias": False,
        "QDQDisableWeightAdjustForInt32Bias": True,
      },
    )
  else:
    quantization.quantize_dynamic(
      whole,
      path,
      op_types_to_quantize=["Gemm", "MatMul"],
      weight_type=quantization.QuantType.QInt8,
      per_channel=True,
    )
  whole.unlink()


class _Reader:
  """Inputs for the measurement of ranges, one after the other."""

  def __init__(self, trained, input: Input, samples: Sequence[np.ndarray]):
    if input == "tensor":
      samples = [trained.prepare(x) for x in samples]
    self._inputs = iter(samples)

  def get_next(self) -> dict[str, np.ndarray] | None:
    image = next(self._inputs, None)
    return None if image is None else {"image": image[None]}
