"""The preprocessing of images as a function of JAX, for images of any size.

It does what the ops of `vitjax.data.pp` do with TensorFlow. A resize is a
product with two matrices, the weights of rows and of columns. They are computed
from the size of the image, so that every interpolation is exact.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vitjax.data.pp import builder

# Ops that normalise run last, as functions of JAX; the others change no pixel.
_PASSED = ("decode", "value_range", "normalize", "vgg_value_range")

Size = Any  # an int, a symbolic dimension or an integer that is computed


def prepare(
  preprocess: str,
  image: UInt8[Array, "b h w c"],
  image_size: tuple[int, int],
) -> Float[Array, "b _h _w c"]:
  """Prepares images as the first eval of training prepared its images.

  Args:
    preprocess: the preprocessing string of the model.
    image: pixels; height and width may be symbolic.
    image_size: height and width of the result in pixels.

  Raises:
    NotImplementedError: if an op has no counterpart here, or the images end in
      another size.
  """
  text = builder.for_images(preprocess)
  x = image.astype(jnp.float32)
  view = _View.of(x)
  for name, options in builder.calls(text):
    if options.get("key") != "image" or name in _PASSED:
      continue
    if name not in _OPS:
      raise NotImplementedError(f"the op {name} has no counterpart")
    view = _OPS[name](view, **{k: v for k, v in options.items() if k != "key"})
    if view.is_fixed:
      x = view.cut(x)
      view = _View.of(x)
  if x.shape[1:3] != tuple(image_size):
    height, width = image_size
    raise NotImplementedError(
      f"{preprocess!r} does not resize images to {height}x{width}"
    )
  return builder.build(text).on_device({"image": x})["image"]


@dataclasses.dataclass(frozen=True)
class _Axis:
  """What is taken of the rows or of the columns.

  Attributes:
    length: number of rows.
    origin, extent: first row and number of rows that are taken.
    size: number of rows after the resize; None: no resize.
    start, count: first row and number of rows that are taken of the result;
      None: all.
  """

  length: Size
  origin: Size
  extent: Size
  size: Size | None = None
  start: Size = 0
  count: int | None = None

  @property
  def result(self) -> Size:
    """Number of rows after the resize."""
    return self.extent if self.size is None else self.size


@dataclasses.dataclass(frozen=True)
class _View:
  """A part of an image and its resize, before they are computed."""

  rows: _Axis
  columns: _Axis
  method: str = "bilinear"
  antialias: bool = False

  @classmethod
  def of(cls, x: Float[Array, "b h w c"]) -> "_View":
    """All of an image."""
    rows, columns = (_Axis(size, 0, size) for size in x.shape[1:3])
    return cls(rows, columns)

  @property
  def is_fixed(self) -> bool:
    """Whether the size of the result is known."""
    return None not in (self.rows.count, self.columns.count)

  def cut(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w c"]:
    """Takes the part of an image."""
    if self.rows.size is None:
      for i, axis in enumerate((self.rows, self.columns)):
        assert axis.count is not None
        start = axis.origin + axis.start
        x = jax.lax.dynamic_slice_in_dim(x, start, axis.count, i + 1)
      return x
    weights_of = _WEIGHTS[self.method]
    rows, columns = (
      weights_of(axis, self.antialias) for axis in (self.rows, self.columns)
    )
    x = x.transpose(0, 3, 1, 2) @ columns.T  # (b, c, h, columns)
    x = x.swapaxes(2, 3) @ rows.T
    return jnp.clip(jnp.round(x.transpose(0, 3, 2, 1)), 0, 255)


def _kernel_weights(
  kernel: Callable[[Array], Array], radius: float
) -> Callable[[_Axis, bool], Float[Array, "o h"]]:
  """Weights of an interpolation: those of the pixels around each new one."""

  def weights(axis: _Axis, antialias: bool) -> Float[Array, "o h"]:
    extent, size = _float(axis.extent), _float(axis.size)
    step = 1 / (size / extent)
    centre = (_float(axis.start) + _range(axis.count) + 0.5) * step
    width = jnp.maximum(step, 1) if antialias else jnp.float32(1)
    place = _range(axis.length) - _float(axis.origin)
    distance = jnp.abs(place[None] + 0.5 - centre[:, None]) / width
    return _normalised(kernel, radius, place, extent, distance)

  return weights


def _plain_weights(
  kernel: Callable[[Array], Array], radius: float, table_size: int | None = None
) -> Callable[[_Axis, bool], Float[Array, "o h"]]:
  """Those of TensorFlow's older kernels, where nothing is antialiased.

  Bicubic interpolation has a table of the kernel with `table_size` places
  between two pixels.
  """
  antialiased = _kernel_weights(kernel, radius)

  def weights(axis: _Axis, antialias: bool) -> Float[Array, "o h"]:
    if antialias:
      return antialiased(axis, True)
    extent, size = _float(axis.extent), _float(axis.size)
    row = _float(axis.start) + _range(axis.count)
    centre = (row + 0.5) * (extent / size) - 0.5
    whole = jnp.floor(centre)
    rest = centre - whole
    if table_size is not None:
      rest = jnp.round(rest * table_size) / table_size
    place = _range(axis.length) - _float(axis.origin)
    distance = jnp.abs(place[None] - whole[:, None] - rest[:, None])
    return _normalised(kernel, radius, place, extent, distance)

  return weights


def _normalised(kernel, radius, place, extent, distance) -> Array:
  """Weights that sum to one over the pixels that exist."""
  inside = (place >= 0) & (place < extent)
  inside = inside[None] & (distance < radius)
  found = jnp.where(inside, kernel(distance), 0.0)
  return found / found.sum(axis=1, keepdims=True)


def _nearest(axis: _Axis, antialias: bool) -> Float[Array, "o h"]:
  extent, size = _float(axis.extent), _float(axis.size)
  step = extent / size
  place = (_float(axis.start) + _range(axis.count) + 0.5) * step
  place = jnp.minimum(jnp.floor(place), extent - 1) + _float(axis.origin)
  return (_range(axis.length)[None] == place[:, None]).astype(jnp.float32)


def _area(axis: _Axis, antialias: bool) -> Float[Array, "o h"]:
  """Shares of the pixels that a new one covers."""
  extent, size = _float(axis.extent), _float(axis.size)
  step = extent / size
  low = (_float(axis.start) + _range(axis.count))[:, None] * step
  place = (_range(axis.length) - _float(axis.origin))[None]
  high = jnp.minimum(low + step, extent)
  found = jnp.minimum(place + 1, high) - jnp.maximum(place, low)
  found = jnp.maximum(found, 0)
  return found / found.sum(axis=1, keepdims=True)


def _range(size: Size) -> Float[Array, " n"]:
  return jnp.arange(size, dtype=jnp.int32).astype(jnp.float32)


def _float(size: Size) -> Float[Array, ""]:
  return jnp.asarray(size).astype(jnp.float32)


def _triangle(x: Array) -> Array:
  return 1 - x


def _cubic(x: Array) -> Array:
  """Keys' cubic, with a = -1/2."""
  near = (1.5 * x - 2.5) * x * x + 1
  far = ((-0.5 * x + 2.5) * x - 4) * x + 2
  return jnp.where(x < 1, near, far)


def _lanczos(radius: int) -> Callable[[Array], Array]:
  def kernel(x: Array) -> Array:
    y = jnp.maximum(x, 1e-3) * math.pi
    value = radius * jnp.sin(y) * jnp.sin(y / radius) / (y * y)
    return jnp.where(x <= 1e-3, 1.0, value)

  return kernel


_WEIGHTS: Mapping[str, Callable[[_Axis, bool], Array]] = {
  "bilinear": _plain_weights(_triangle, 1),
  "bicubic": _plain_weights(_cubic, 2, table_size=1024),
  "lanczos3": _kernel_weights(_lanczos(3), 3),
  "lanczos5": _kernel_weights(_lanczos(5), 5),
  "nearest": _nearest,
  "area": _area,
}


def _pair(size) -> tuple[int, int]:
  return (size, size) if isinstance(size, int) else tuple(size)


def _resize(view: _View, size, method: str, antialias: bool) -> _View:
  rows, columns = (
    dataclasses.replace(axis, size=n, count=n)
    for axis, n in zip((view.rows, view.columns), _pair(size))
  )
  return _View(rows, columns, method, antialias)


def _resize_small(
  view: _View, smaller_size: int, method: str, antialias: bool
) -> _View:
  sides = (view.rows.extent, view.columns.extent)
  shorter = _minimum(*sides)
  rows, columns = (
    dataclasses.replace(
      axis, size=_rounded_ratio(axis.extent * smaller_size, shorter)
    )
    for axis in (view.rows, view.columns)
  )
  return _View(rows, columns, method, antialias)


def _rounded_ratio(number: Size, divisor: Size) -> Size:
  """number / divisor, rounded to the nearest integer (half to even)."""
  number, divisor = jnp.asarray(number), jnp.asarray(divisor)
  whole = jax.lax.div(number, divisor)
  twice = 2 * (number - whole * divisor)
  is_odd = whole - 2 * jax.lax.div(whole, jnp.full_like(whole, 2)) == 1
  up = (twice > divisor) | ((twice == divisor) & is_odd)
  return whole + up.astype(whole.dtype)


def _minimum(x: Size, y: Size) -> Size:
  return jnp.minimum(jnp.asarray(x), jnp.asarray(y))


def _half(x: Size) -> Size:
  x = jnp.asarray(x)
  return jax.lax.div(x, jnp.full_like(x, 2))


def _central_crop(view: _View, size) -> _View:
  axes = (view.rows, view.columns)
  if size is not None:
    rows, columns = (
      dataclasses.replace(axis, start=_half(axis.result - n), count=n)
      for axis, n in zip(axes, _pair(size))
    )
  elif view.rows.size is None:
    side = _minimum(view.rows.extent, view.columns.extent)
    rows, columns = (
      dataclasses.replace(axis, origin=_half(axis.extent - side), extent=side)
      for axis in axes
    )
  else:
    raise NotImplementedError(
      "central_crop() after resize_small has no counterpart: name the size"
    )
  return dataclasses.replace(view, rows=rows, columns=columns)


_OPS: Mapping[str, Callable[..., _View]] = {
  "resize": _resize,
  "resize_small": _resize_small,
  "central_crop": _central_crop,
}
