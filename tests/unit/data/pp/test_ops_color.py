"""Random changes of colours against Pillow, and how often each comes."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from sklearn import datasets

from vitjax.data import seeds
from vitjax.data.pp import builder, ops_color

PHOTO = np.ascontiguousarray(
  datasets.load_sample_images().images[1][100:164, 200:280]
)
PIL = Image.fromarray(PHOTO)
GREY = np.asarray(PIL.convert("L").convert("RGB")).astype(int)


def many(op, image=PHOTO, count=300):
  keys = seeds.example_seeds(0, tf.range(count, dtype=tf.int64), 2)
  images = tf.constant(np.stack([image] * count))
  return op({"image": images, "seed": keys})["image"].numpy()


@pytest.mark.parametrize(
  "op",
  [
    ops_color.color_jitter(0.4, 0.4, 0.4, 0.1),
    ops_color.grayscale(0.5),
    ops_color.gaussian_blur(0.5),
    ops_color.three_augment(),
  ],
)
def test_results_depend_on_the_seed_alone(op):
  out = many(op, count=20)
  assert len({image.tobytes() for image in out}) > 1
  features = {
    "image": tf.constant(np.stack([PHOTO] * 20)),
    "seed": seeds.example_seeds(0, tf.range(20, dtype=tf.int64), 2),
  }
  (mapped,) = tf.data.Dataset.from_tensors(features).map(op)
  np.testing.assert_array_equal(mapped["image"], out)
  tail = op({name: value[13:] for name, value in features.items()})
  np.testing.assert_array_equal(tail["image"], out[13:])
  assert many(op, PHOTO[..., :1], 5).shape == (5, *PHOTO.shape[:2], 1)


@pytest.mark.parametrize("prob", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
  "op_of",
  [
    ops_color.grayscale,
    ops_color.gaussian_blur,
    lambda prob: ops_color.color_jitter(0.4, 0.4, 0.4, prob=prob),
  ],
)
def test_prob_is_a_frequency(op_of, prob):
  changed = (many(op_of(prob)) != PHOTO).any(axis=(1, 2, 3))
  assert abs(changed.mean() - prob) < 4 * (prob * (1 - prob) / 300) ** 0.5 + 0.1


@pytest.mark.parametrize("position", range(3))
def test_single_factors_are_uniform(position):
  strengths = [0.0] * 3
  strengths[position] = 0.4
  enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
  candidates = np.stack(
    [enhance[position](PIL).enhance(f) for f in np.linspace(0.5, 1.5, 101)]
  ).astype(np.int16)
  factors = []
  for image in many(ops_color.color_jitter(*strengths)):
    gaps = np.abs(candidates - image).mean(axis=(1, 2, 3))
    assert gaps.min() < 1.2  # Half a step of the grid.
    factors.append(0.5 + gaps.argmin() / 100)
  quantiles = np.quantile(factors, [0, 0.25, 0.5, 0.75, 1])
  np.testing.assert_allclose(quantiles, [0.6, 0.8, 1, 1.2, 1.4], atol=0.07)


def test_factors_are_not_negative_and_hues_turn_to_both_sides():
  out = many(ops_color.color_jitter(3.0, 0, 0))
  # With factors from -2 on, a third of the images would be black.
  assert np.mean((out == 0).all(axis=(1, 2, 3))) < 0.05
  out = many(ops_color.color_jitter(0, 0, 0, 0.5))
  np.testing.assert_allclose(
    out.max(axis=-1), np.broadcast_to(PHOTO.max(-1), out.shape[:3]), atol=2
  )
  hue = cv_hues(out)
  shift = (hue - cv_hues(PHOTO[None])).reshape(300, -1) % 256
  turns = np.median(shift, axis=1)
  np.testing.assert_allclose(
    np.quantile(turns, [0.25, 0.5, 0.75]), [64, 128, 192], atol=20
  )


def cv_hues(images):
  """Of vivid pixels alone: those of grey ones say nothing."""
  vivid = np.ptp(PHOTO.astype(int), axis=-1) > 60
  hues = [np.asarray(Image.fromarray(i).convert("HSV"))[..., 0] for i in images]
  return np.stack(hues).astype(int)[:, vivid]


def test_jitter_comes_in_random_order():
  enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
  jitter = ops_color._jitter(0.9, 0.9, 0.9, 0)
  orders = set()
  for seed in range(60):
    out = jitter(PHOTO, np.random.default_rng(seed))
    replay = np.random.default_rng(seed)
    order = replay.permutation(3)
    expected = PIL
    for i in order:
      expected = enhance[i](expected).enhance(replay.uniform(0.1, 1.9))
    gap = np.abs(out.astype(int) - np.asarray(expected))
    # A level of difference is multiplied by up to 1.9 three times.
    assert gap.max() <= 7 and gap.mean() < 0.5
    orders.add(tuple(order))
  assert len(orders) == 6


def test_three_augment_does_one_of_three():
  counts = collections.Counter()
  radii = np.linspace(0.1, 2, 39)
  blurred = np.stack(
    [np.asarray(PIL.filter(ImageFilter.GaussianBlur(float(r)))) for r in radii]
  ).astype(int)
  solarized = np.asarray(ImageOps.solarize(PIL, 128)).astype(int)
  drawn = []
  for image in many(ops_color.three_augment(color_jitter=0.0)):
    gaps = {
      "grey": np.abs(image - GREY).mean(),
      "solarize": np.abs(image - solarized).mean(),
      "blur": (each := np.abs(blurred - image).mean(axis=(1, 2, 3))).min(),
    }
    name = min(gaps, key=gaps.get)
    assert gaps[name] < 0.8
    counts[name] += 1
    if name == "blur":
      drawn.append(radii[each.argmin()])
  assert min(counts.values()) > 70 and len(counts) == 3
  # Blurs of less than a third of a pixel look alike.
  np.testing.assert_allclose(
    np.quantile(drawn, [0.5, 0.75, 1]), [1.05, 1.52, 2.0], atol=0.2
  )


def test_three_augment_jitters_afterwards():
  out = many(ops_color.three_augment(0.3), np.full((4, 4, 3), 100, np.uint8))
  # All three leave a flat grey as it is, of which jitter sees the brightness.
  values = out[:, 0, 0, 0]
  assert 69 <= values.min() < 75 and 125 < values.max() <= 130


def test_errors():
  with pytest.raises(ValueError, match=r"hue in 0\.\.0\.5"):
    builder.build("color_jitter(0.4, 0.4, 0.4, 0.6)")
  with pytest.raises(ValueError, match=r"prob must be in 0\.\.1, it is 2"):
    builder.build("grayscale(2)")
  with pytest.raises(ValueError, match="three_augment needs uint8"):
    many(ops_color.three_augment(), PHOTO.astype(np.float32), 1)
