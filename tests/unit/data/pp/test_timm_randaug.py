"""timm's RandAugment: strings, tables, and whole policies against Pillow."""

import collections

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sklearn import datasets

from vitjax.data import seeds
from vitjax.data.pp import builder, timm_randaug

PHOTO = np.ascontiguousarray(
  datasets.load_sample_images().images[1][100:196, 200:328]
)
# So that every op shows: no value is at the end of the range.
DULL = (PHOTO * 0.9 + 12).astype(np.uint8)
FILL = (1, 200, 100)
# timm's arguments at magnitudes 0, 4, 9 and 12, the last with mmax 12. Where
# the sign is random, both are there.
TABLES = {
  0: {
    "Rotate": ([0], [12, -12], [27, -27], [36, -36]),
    "Posterize": ([0], [1], [3], [4]),
    "Solarize": ([0], [102], [230], [256]),
    "SolarizeAdd": ([0], [44], [99], [128]),
    "Color": ([0.1], [0.82], [1.72], [2.26]),
    "ShearX": ([0], [0.12, -0.12], [0.27, -0.27], [0.36, -0.36]),
    "TranslateX": ([0], [0.18, -0.18], [0.405, -0.405], [0.54, -0.54]),
  },
  1: {
    "Posterize": ([4], [3], [1], [0]),
    "Solarize": ([256], [154], [26], [0]),
    "SolarizeAdd": ([0], [44], [99], [128]),
    "Color": ([1], [1.36, 0.64], [1.81, 0.19], [2.08, 0.1]),
  },
}
for table in TABLES.values():
  table["Contrast"] = table["Brightness"] = table["Sharpness"] = table["Color"]
  table["ShearY"] = TABLES[0]["ShearX"]
  table["TranslateY"] = TABLES[0]["TranslateX"]
TABLES[1] = TABLES[0] | TABLES[1]


def augment(config, images, first_seed=0, **options):
  op = timm_randaug.timm_randaug(config, **options)
  numbers = tf.range(first_seed, first_seed + len(images), dtype=tf.int64)
  keys = seeds.example_seeds(0, numbers, 2)
  return op({"image": tf.constant(images), "seed": keys})["image"].numpy()


@pytest.mark.parametrize("increasing", [0, 1])
def test_tables_of_arguments(increasing):
  tables = timm_randaug._INCREASING if increasing else timm_randaug._PLAIN
  assert len(tables) == 15
  random = np.random.default_rng(0)
  for name, columns in TABLES[increasing].items():
    for magnitude, expected in zip((0, 4, 9, 12), columns):
      options = timm_randaug._parse(f"rand-m{magnitude}-mmax12")
      level = timm_randaug._level(options, random)
      got = {float(tables[name](level, random)) for _ in range(50)}
      np.testing.assert_allclose(
        sorted(got),
        sorted(expected),
        atol=1e-9,
        err_msg=f"{name} at {magnitude}",
      )


def candidates(increasing):
  """(name, image) of all that magnitude 9 can give, by Pillow."""
  pil = Image.fromarray(DULL)
  arguments = {name: row[2] for name, row in TABLES[increasing].items()}
  yield "AutoContrast", ImageOps.autocontrast(pil)
  yield "Equalize", ImageOps.equalize(pil)
  yield "Invert", ImageOps.invert(pil)
  yield "Posterize", ImageOps.posterize(pil, *arguments["Posterize"])
  yield "Solarize", ImageOps.solarize(pil, *arguments["Solarize"])
  added = [min(255, i + 99) if i < 128 else i for i in range(256)]
  yield "SolarizeAdd", pil.point(added * 3)
  for name in ("Color", "Contrast", "Brightness", "Sharpness"):
    for factor in arguments[name]:
      yield name, getattr(ImageEnhance, name)(pil).enhance(factor)
  for method in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
    options = {"resample": method, "fillcolor": FILL}
    for degrees in arguments["Rotate"]:
      yield "Rotate", pil.rotate(degrees, **options)
    for sign in (1, -1):
      for name, matrix in (
        ("ShearX", (1, 0.27 * sign, 0, 0, 1, 0)),
        ("ShearY", (1, 0, 0, 0.27 * sign, 1, 0)),
        ("TranslateX", (1, 0, 0.405 * 128 * sign, 0, 1, 0)),
        ("TranslateY", (1, 0, 0, 0, 1, 0.405 * 96 * sign)),
      ):
        yield (
          name,
          pil.transform(pil.size, Image.Transform.AFFINE, matrix, **options),
        )


@pytest.mark.parametrize("increasing", [0, 1])
def test_each_op_is_drawn_as_often_and_is_that_of_pillow(increasing):
  names, images = zip(*candidates(increasing))
  images = np.stack([np.asarray(image, np.float32) for image in images])
  count = 600
  config = f"rand-m9-n1-p1-inc{increasing}"
  out = augment(config, np.stack([DULL] * count), fill=FILL)
  counts, variants = collections.Counter(), collections.Counter()
  for image in out:
    gaps = np.abs(images - image).mean(axis=(1, 2, 3))
    nearest = int(gaps.argmin())
    # Bilinear and bicubic are about one level apart.
    assert gaps[nearest] < 0.8
    counts[names[nearest]] += 1
    variants[nearest] += 1
  assert len(counts) == 15 and len(variants) == len(names)
  expected = count / 15
  assert max(abs(n - expected) for n in counts.values()) < 5 * expected**0.5


@pytest.mark.parametrize(
  "config, unchanged", [("rand", 0.25), ("rand-n3-p0.2", 0.512), ("rand-p1", 0)]
)
def test_ops_are_applied_with_probability(config, unchanged):
  count = 600
  out = augment(f"{config}-m7-inc1", np.stack([DULL] * count))
  same = np.mean((out == DULL).all(axis=(1, 2, 3)))
  # A second op seldom undoes the first, as two inversions do.
  assert abs(same - unchanged) < 4 * (0.25 / count) ** 0.5


def test_magnitudes():
  def draw(config):
    options = timm_randaug._parse(config)
    random = np.random.default_rng(0)
    return np.array([timm_randaug._level(options, random) for _ in range(9999)])

  assert set(draw("rand-m7")) == {0.7}
  assert set(draw("rand-m14")) == {1.0}
  noisy = draw("rand-m5-mstd0.5")
  assert noisy.mean() == pytest.approx(0.5, abs=0.003)
  assert noisy.std() == pytest.approx(0.05, rel=0.05)
  clipped = draw("rand-m9-mstd1")
  assert np.mean(clipped == 1) == pytest.approx(0.159, abs=0.02)
  assert draw("rand-m0-mstd9").min() == 0
  assert draw("rand-m14-mstd1-mmax20").mean() == pytest.approx(1.4, abs=0.01)
  uniform = draw("rand-m8-mstd101")
  np.testing.assert_allclose(
    np.quantile(uniform, [0, 0.25, 0.5, 1]), [0, 0.2, 0.4, 0.8], atol=0.02
  )


@pytest.mark.parametrize(
  "config",
  [
    "m9",
    "original",
    "rand-m9.5",
    "rand-m9-w0",
    "rand-tweights",
    "rand-p2",
    "rand-inc2",
    "rand-m",
    "rand-",
  ],
)
def test_errors_name_what_is_allowed(config):
  with pytest.raises(ValueError, match=r"m<int>, n<int>, p<0\.\.1>"):
    timm_randaug.timm_randaug(config)


def test_other_errors():
  with pytest.raises(ValueError, match="bilinear, bicubic, random"):
    timm_randaug.timm_randaug(method="area")
  with pytest.raises(ValueError, match="one number or three"):
    timm_randaug.timm_randaug(fill=(1, 2))
  with pytest.raises(ValueError, match="uint8 images with one or three"):
    augment("rand", np.zeros((1, 4, 4, 3), np.float32))


def test_results_depend_on_the_seed_alone():
  images = np.stack([PHOTO] * 60)
  config = "rand-m9-n3-mstd0.5-inc1"
  out = augment(config, images)
  assert len({image.tobytes() for image in out}) > 45
  halves = [augment(config, images[:37]), augment(config, images[37:], 37)]
  np.testing.assert_array_equal(np.concatenate(halves), out)

  features = {
    "image": tf.constant(images[:16]),
    "seed": seeds.example_seeds(0, tf.range(16, dtype=tf.int64), 2),
  }
  op = timm_randaug.timm_randaug(config)
  (mapped,) = tf.data.Dataset.from_tensors(features).map(op)
  np.testing.assert_array_equal(mapped["image"], out[:16])
  # As in a run: the string, one example at a time.
  pp = builder.build(f"timm_randaug('{config}')")
  one = [
    pp({"image": features["image"][i], "seed": features["seed"][i]})["image"]
    for i in range(16)
  ]
  np.testing.assert_array_equal(one, out[:16])


def test_grey_images_and_odd_sizes():
  images = np.stack([PHOTO[:31, :17, :1]] * 100)
  out = augment("rand-m9-mstd0.5-inc1-n3", images)
  assert out.shape == images.shape
  assert 0.05 < np.mean((out == images).all(axis=(1, 2, 3))) < 0.4
  # Ops on brightness see one channel as they see three alike.
  thrice = augment(
    "rand-m9-n1-p1-inc1", np.repeat(images, 3, axis=-1), fill=115
  )
  once = augment("rand-m9-n1-p1-inc1", images, fill=115)
  np.testing.assert_allclose(thrice.astype(int), np.repeat(once, 3, -1), atol=1)
  assert augment("rand-p1-n9", images[:3, :1, :1]).shape == (3, 1, 1, 1)
