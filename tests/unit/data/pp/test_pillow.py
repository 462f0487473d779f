"""Each operation against Pillow, in colour and in grey."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from sklearn import datasets

from vitjax.data.pp import pillow

PHOTO = np.ascontiguousarray(
  datasets.load_sample_images().images[1][100:196, 200:328]
)
RESAMPLING = {
  "bilinear": Image.Resampling.BILINEAR,
  "bicubic": Image.Resampling.BICUBIC,
}
both = pytest.mark.parametrize(
  "image", [PHOTO, np.ascontiguousarray(PHOTO[..., 1])], ids=["rgb", "grey"]
)
methods = pytest.mark.parametrize("method", pillow.METHODS)


def close(out, expected, *, most, mean):
  """Within so many levels at most, and on average."""
  expected = np.asarray(expected)
  assert out.dtype == np.uint8 and out.shape == expected.shape
  difference = np.abs(out.astype(int) - expected)
  assert difference.max() <= most
  assert difference.mean() <= mean


@both
def test_tables(image):
  for case in (image, image // 2 + 30, np.full_like(image, 7)):
    pil = Image.fromarray(case)
    equal = np.testing.assert_array_equal
    equal(pillow.autocontrast(case), ImageOps.autocontrast(pil))
    equal(pillow.equalize(case), ImageOps.equalize(pil))
    equal(pillow.invert(case), ImageOps.invert(pil))
    for bits in (1, 4, 7):
      equal(pillow.posterize(case, bits), ImageOps.posterize(pil, bits))
    for threshold in (0, 26, 128, 256):
      out = pillow.solarize(case, threshold)
      equal(out, ImageOps.solarize(pil, threshold))
    added = [min(255, i + 99) if i < 128 else i for i in range(256)]
    equal(pillow.solarize_add(case, 99), np.array(added)[case])
  # Beyond what Pillow takes: timm's tables have it.
  assert not pillow.posterize(image, 0).any()
  assert not pillow.posterize(image, -2).any()
  np.testing.assert_array_equal(pillow.posterize(image, 9), image)


@both
@pytest.mark.parametrize("factor", [0.1, 0.6, 1.0, 1.5, 1.9])
@pytest.mark.parametrize(
  "name", ["Color", "Contrast", "Brightness", "Sharpness"]
)
def test_enhancements(image, factor, name):
  expected = getattr(ImageEnhance, name)(Image.fromarray(image)).enhance(factor)
  out = getattr(pillow, name.lower())(image, factor)
  # Fractions that float32 takes for whole numbers are not truncated.
  close(out, expected, most=1, mean=0.02)


@both
def test_grayscale(image):
  expected = Image.fromarray(image).convert("L").convert
  out = pillow.grayscale(image)
  close(out, expected("RGB" if image.ndim == 3 else "L"), most=1, mean=0.01)


@both
@methods
@pytest.mark.parametrize(
  "matrix",
  [
    ((1, 0.21, 0), (0, 1, 0)),
    ((1, 0, 0), (-0.27, 1, 0)),
    ((1, 0, 13.37), (0, 1, 0)),
    ((1, 0, 0), (0, 1, -40.2)),
    ((1, 0, 13), (0, 1, -7)),
  ],
  ids=["shear_x", "shear_y", "translate_x", "translate_y", "whole"],
)
def test_affine(image, method, matrix):
  fill = (200, 10, 90) if image.ndim == 3 else 90
  expected = Image.fromarray(image).transform(
    image.shape[1::-1],
    Image.Transform.AFFINE,
    (*matrix[0], *matrix[1]),
    resample=RESAMPLING[method],
    fillcolor=fill,
  )
  out = pillow.affine(image, matrix, method, fill)
  if isinstance(matrix[0][2], int) and matrix[0][2]:
    np.testing.assert_array_equal(out, expected)
  elif method == "bilinear":  # Rounded, where Pillow truncates.
    close(out, expected, most=1, mean=0.5)
  else:
    close(out, expected, most=12, mean=0.8)


@both
@methods
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
  "pixels", [-95.7, -40.2, -7, -0.5, 0, 0.3, 0.5, 13.7, 94.5, 300.1]
)
def test_translate(image, method, axis, pixels):
  fill = (200, 10, 90) if image.ndim == 3 else 90
  matrix = (1, 0, pixels, 0, 1, 0) if axis else (1, 0, 0, 0, 1, pixels)
  expected = Image.fromarray(image).transform(
    image.shape[1::-1],
    Image.Transform.AFFINE,
    matrix,
    resample=RESAMPLING[method],
    fillcolor=fill,
  )
  out = pillow.translate(image, pixels, axis, method, fill)
  close(out, expected, most=1, mean=0.6)  # Rounded, where Pillow truncates.


@both
@methods
@pytest.mark.parametrize("degrees", [27.3, -11, 0])
def test_rotate(image, method, degrees):
  fill = (200, 10, 90) if image.ndim == 3 else 90
  expected = Image.fromarray(image).rotate(
    degrees, resample=RESAMPLING[method], fillcolor=fill
  )
  out = pillow.rotate(image, degrees, method, fill)
  most = 1 if method == "bilinear" else 12
  close(out, expected, most=most if degrees else 0, mean=0.8)


@both
@methods
@pytest.mark.parametrize("size", [(40, 64), (96, 50), (30, 200), (200, 200)])
def test_resize_is_antialiased(image, method, size):
  expected = Image.fromarray(image).resize(size[::-1], RESAMPLING[method])
  out = pillow.resize(image, *size, method)
  close(out, expected, most=14, mean=0.7)


@both
@pytest.mark.parametrize("radius", [0.1, 0.7, 1.3, 2.0])
def test_gaussian_blur(image, radius):
  expected = Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius))
  close(pillow.gaussian_blur(image, radius), expected, most=14, mean=0.8)


@pytest.mark.parametrize("turn", [-0.4, -0.05, 0.0, 0.1, 0.3])
def test_hue(turn):
  h, s, v = Image.fromarray(PHOTO).convert("HSV").split()
  turned = np.asarray(h) + np.uint8(int(turn * 255) % 256)
  merged = Image.merge("HSV", (Image.fromarray(turned), s, v))
  # Both round hue and saturation to 8 bits, but not alike.
  close(pillow.hue(PHOTO, turn), merged.convert("RGB"), most=16, mean=1.5)
