"""Each op of RandAugment against slow NumPy or Pillow, and the policy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn import datasets

from vitjax.data import seeds
from vitjax.data.pp import randaug

PHOTO = np.ascontiguousarray(
  datasets.load_sample_images().images[1][100:196, 200:328]
)
DARK = (PHOTO // 2 + 30).astype(np.uint8)
MAGNITUDES = (0, 3, 5, 10)


class Sign:
  """A generator whose coin always falls the same way."""

  def __init__(self, negative):
    self.random = lambda: 0.0 if negative else 0.9
    self.integers = lambda high: high // 3


def blend(first, second, factor):
  mixed = first + factor * (second.astype(np.float64) - first)
  return np.clip(mixed, 0, 255).astype(int)


def close(out, expected, levels=1):
  """Truncation may fall differently in float32 and float64."""
  assert out.dtype == np.uint8
  difference = np.abs(out.astype(int) - expected)
  assert difference.max() <= levels
  assert np.mean(difference > 0) < 0.02


def test_tables_against_pillow():
  for image in (PHOTO, DARK, np.full((8, 8, 3), 7, np.uint8)):
    pil = Image.fromarray(image)
    np.testing.assert_array_equal(
      randaug.equalize(image, 10, None), ImageOps.equalize(pil)
    )
    close(
      randaug.autocontrast(image, 10, None),
      np.asarray(ImageOps.autocontrast(pil)),
    )
    np.testing.assert_array_equal(
      randaug.invert(image, 10, None), ImageOps.invert(pil)
    )
    np.testing.assert_array_equal(
      randaug.posterize(image, 10, None), ImageOps.posterize(pil, 4)
    )
    np.testing.assert_array_equal(
      randaug.solarize(image, 5, None), ImageOps.solarize(pil, 128)
    )


def test_quirks_of_the_reference():
  # Fewer bits at a lower magnitude.
  assert not randaug.posterize(PHOTO, 0, None).any()
  np.testing.assert_array_equal(
    randaug.posterize(PHOTO, 3, None), PHOTO & 0b10000000
  )
  np.testing.assert_array_equal(
    randaug.posterize(PHOTO, 15, None), PHOTO & 0b11111100
  )
  np.testing.assert_array_equal(randaug.posterize(PHOTO, 20, None), PHOTO)


@pytest.mark.parametrize("magnitude", [0, 3, 10, 15, 20])
def test_solarize_wraps_its_threshold_as_tensorflow_does(magnitude):
  threshold = int(magnitude / 10 * 256)  # 384 at 15, where AugReg trained
  image = tf.constant(PHOTO)
  want = tf.where(image < threshold, image, 255 - image)
  np.testing.assert_array_equal(randaug.solarize(PHOTO, magnitude, None), want)


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_solarize_add(magnitude):
  added = np.clip(PHOTO.astype(int) + int(magnitude * 11), 0, 255)
  np.testing.assert_array_equal(
    randaug.solarize_add(PHOTO, magnitude, None),
    np.where(PHOTO < 128, added, PHOTO),
  )


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_enhancements(magnitude):
  factor = magnitude / 10 * 1.8 + 0.1
  published = tf.image.rgb_to_grayscale(PHOTO).numpy().astype(float)
  close(
    randaug.color(PHOTO, magnitude, None),
    blend(np.repeat(published, 3, -1), PHOTO, factor),
    levels=2,  # A grey that is off by one is multiplied by up to 1.9.
  )
  constant = np.full_like(PHOTO, 96 * 128 // 256)
  close(
    randaug.contrast(PHOTO, magnitude, None), blend(constant, PHOTO, factor)
  )
  close(
    randaug.brightness(PHOTO, magnitude, None), blend(0 * PHOTO, PHOTO, factor)
  )

  smooth = PHOTO.astype(int).copy()
  for y in range(1, 95):
    for x in range(1, 127):
      block = PHOTO[y - 1 : y + 2, x - 1 : x + 2].astype(int).sum((0, 1))
      smooth[y, x] = (block + 4 * PHOTO[y, x].astype(int)) // 13
  close(randaug.sharpness(PHOTO, magnitude, None), blend(smooth, PHOTO, factor))


def slow_warp(image, source_of):
  out = np.full_like(image, 128)
  height, width = image.shape[:2]
  for y in range(height):
    for x in range(width):
      places = source_of(x, y)
      sx, sy = (int(math.copysign(math.floor(abs(p) + 0.5), p)) for p in places)
      if 0 <= sx < width and 0 <= sy < height:
        out[y, x] = image[sy, sx]
  return out


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("magnitude", [3, 10])
def test_warps(magnitude, sign):
  random = Sign(sign < 0)
  level = np.float32(sign * magnitude / 10 * 0.3)
  pixels = sign * magnitude * 10
  angle = sign * magnitude * 3
  radians = math.radians(angle)
  cos, sin = math.cos(radians), math.sin(radians)

  def turned(x, y):
    x, y = x - 63.5, y - 47.5
    return cos * x - sin * y + 63.5, sin * x + cos * y + 47.5

  for op, source_of in (
    (randaug.shear_x, lambda x, y: (x + level * np.float32(y), y)),
    (randaug.shear_y, lambda x, y: (x, y + level * np.float32(x))),
    (randaug.translate_x, lambda x, y: (x + pixels, y)),
    (randaug.translate_y, lambda x, y: (x, y + pixels)),
    (randaug.rotate, turned),
  ):
    out = op(PHOTO, magnitude, random)
    expected = slow_warp(PHOTO, source_of)
    # Only places that are halves within float32 may be rounded differently.
    assert np.mean((out != expected).any(-1)) < 0.002, op.__name__


def test_rotation_is_about_the_centre():
  pil = Image.fromarray(PHOTO).rotate(30, fillcolor=(128, 128, 128))
  out = randaug.rotate(PHOTO, 10, Sign(False))
  assert np.mean((out != np.asarray(pil)).any(-1)) < 0.02


def test_cutout():
  out = randaug.cutout(PHOTO, 5, Sign(False))
  y, x = 96 // 3, 128 // 3
  expected = PHOTO.copy()
  expected[y - 20 : y + 20, x - 20 : x + 20] = 128
  np.testing.assert_array_equal(out, expected)
  edge = randaug.cutout(PHOTO[:30], 10, Sign(False))
  assert (edge[:, 2:82] == 128).all()


def test_policy_draws_all_ops_and_depends_on_the_seed_alone():
  images = np.stack([PHOTO] * 200)
  keys = seeds.example_seeds(0, tf.range(200, dtype=tf.int64), 2)
  op = randaug.randaug(1, 5)
  features = {"image": tf.constant(images), "seed": keys}
  out = op(features)["image"].numpy()
  candidates = [
    image_op(PHOTO, 5, Sign(negative)).tobytes()
    for image_op in randaug.IMAGE_OPS
    for negative in (False, True)
    if image_op is not randaug.cutout
  ]
  known = [image.tobytes() in candidates for image in out]
  assert 0.85 < np.mean(known) < 1  # The rest is Cutout: 1 of 16.
  assert len({image.tobytes() for image in out} & set(candidates)) > 15

  halves = [
    op({"image": tf.constant(images[s]), "seed": keys[s]})["image"].numpy()
    for s in (slice(None, 37), slice(37, None))
  ]
  np.testing.assert_array_equal(np.concatenate(halves), out)
  (mapped,) = tf.data.Dataset.from_tensors(features).map(op)
  np.testing.assert_array_equal(mapped["image"], out)


def test_no_layers_is_identity_and_grey_is_refused():
  features = {
    "image": tf.constant(PHOTO[None]),
    "seed": tf.zeros([1, 2], tf.int32),
  }
  np.testing.assert_array_equal(
    randaug.randaug(0)(features)["image"], PHOTO[None]
  )
  with pytest.raises(ValueError, match="three channels"):
    randaug.randaug()({**features, "image": tf.zeros([1, 8, 8, 1], tf.uint8)})
