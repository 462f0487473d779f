"""Ops that scale the values of pixels, on the accelerator."""

from collections.abc import Sequence

from vitjax.data.pp.kinds import DeviceOp, as_statistics


def value_range(
  vmin: float = -1,
  vmax: float = 1,
  in_min: float = 0,
  in_max: float = 255,
  *,
  key: str = "image",
) -> DeviceOp:
  """Maps values linearly from [in_min, in_max] to [vmin, vmax], as float32.

  Runs on the accelerator, so it must follow every other op on the image.

  Args:
    vmin: result for `in_min`.
    vmax: result for `in_max`.
    in_min: value of a pixel that becomes `vmin`; 0 is black.
    in_max: value of a pixel that becomes `vmax`; 255 is white.
    key: feature with the image.
  """
  if not (vmin < vmax and in_min < in_max):
    raise ValueError("needs vmin < vmax and in_min < in_max")
  # (x - in_min) / (in_max - in_min) * (vmax - vmin) + vmin as (x - mean) / std.
  std = (in_max - in_min) / (vmax - vmin)
  return DeviceOp(key, (in_min - vmin * std,), (std,))


def normalize(
  mean: float | Sequence[float] = (0.485, 0.456, 0.406),
  std: float | Sequence[float] = (0.229, 0.224, 0.225),
  *,
  key: str = "image",
) -> DeviceOp:
  """Computes `(pixel / 255 - mean) / std`, as float32.

  Runs on the accelerator, so it must follow every other op on the image.

  Args:
    mean: mean of pixels in 0..1, one number or one for each channel; the
      default is ImageNet's.
    std: standard deviation of pixels in 0..1, likewise.
    key: feature with the image.
  """
  mean, std = as_statistics(mean), as_statistics(std)
  if max(map(abs, mean)) > 1 or max(std) > 1 or min(std) <= 0:
    raise ValueError(
      "mean and std are for values in 0..1; vgg_value_range takes those for "
      "values in 0..255"
    )
  return DeviceOp(
    key, tuple(m * 255 for m in mean), tuple(s * 255 for s in std)
  )


def vgg_value_range(
  mean: Sequence[float] = (0.485 * 255, 0.456 * 255, 0.406 * 255),
  std: Sequence[float] = (0.229 * 255, 0.224 * 255, 0.225 * 255),
  *,
  key: str = "image",
) -> DeviceOp:
  """Computes `(pixel - mean) / std`, as float32.

  Runs on the accelerator, so it must follow every other op on the image.

  Args:
    mean: mean of pixels in 0..255, one number for each channel; the default is
      ImageNet's.
    std: standard deviation of pixels in 0..255, likewise.
    key: feature with the image.
  """
  mean, std = as_statistics(mean), as_statistics(std)
  if min(std) <= 0:
    raise ValueError(f"std must be positive, it is {std}")
  return DeviceOp(key, mean, std)


OPS = {
  "value_range": value_range,
  "normalize": normalize,
  "vgg_value_range": vgg_value_range,
}
