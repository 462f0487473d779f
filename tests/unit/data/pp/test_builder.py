"""Preprocessing strings: meaning, errors with their place, order of kinds."""

import json

import jax
import numpy as np
import pytest
import tensorflow as tf

from vitjax.data.pp import builder

SEED = np.array([3, 4], np.int32)


def features(image):
  return {"image": tf.constant(image), "label": 1, "seed": tf.constant(SEED)}


def test_ops_run_from_left_to_right():
  image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
  out = builder.build("central_crop(4)|pad(6, value=7)")(features(image))
  expected = np.pad(
    image[2:6, 2:6], [[1, 1], [1, 1], [0, 0]], constant_values=7
  )
  np.testing.assert_array_equal(out["image"], expected)


def test_calls_without_parentheses_newlines_and_empty_strings():
  assert builder.build("").on_device({"a": 1}) == {"a": 1}
  image = np.zeros((8, 8, 1), np.uint8)
  out = builder.build("\n decode\n | central_crop(2)\n")(features(image))
  assert out["image"].shape == (2, 2, 3)


@pytest.mark.parametrize(
  ("pp", "column", "message"),
  [
    ("decode|rezise(224)", 8, "Did you mean 'resize'"),
    ("decode|resize()", 8, "missing a required argument: 'size'"),
    ("decode|resize()", 8, "resize(size, method='bilinear', *, antialias="),
    ("decode|resize(224, methd='area')", 8, "methd"),
    ("decode|resize(-3)", 8, "one positive integer"),
    ("decode|resize(224, 'cubic')", 8, "'cubic' is none of"),
    ("resize(8)|flip_lr(", 18, "not an expression"),
    ("resize(size)", 8, "must be literals"),
    ("resize(8) + flip_lr", 1, "expected an op"),
    ("value_range(-1,1)|resize(8)", 19, "must come after every other op"),
    ("value_range(-1,1)|flip_lr", 19, "must come after every other op"),
    ("value_range(-1,1)|normalize()", 19, "only once"),
    ("normalize((120,120,120))", 1, "vgg_value_range"),
    ("decode|inception_crop(8, 0.05, 1.5, (1, 2), 9)", 8, "too many"),
    ("randaug(2, 21)", 1, "magnitude <= 20"),
    ("keep('ä')|rezise(2)", 11, "unknown op"),
  ],
)
def test_errors_show_the_place(pp, column, message):
  with pytest.raises(ValueError) as error:
    builder.build(pp)
  text = str(error.value)
  assert message in text
  assert f"column {column}:" in text
  assert text.splitlines()[-1].index("^") == column + 1


def test_labels_may_change_after_normalising():
  builder.build("decode|value_range(-1,1)|onehot(10)|keep('image','labels')")


def test_each_random_op_has_its_own_randomness():
  # Were the seed not folded in, both copies would flip together, always.
  pp = builder.build("copy('image','b')|flip_lr|flip_lr(key='b')")
  image = np.arange(2, dtype=np.uint8).reshape(1, 2, 1)
  equal = 0
  for i in range(64):
    out = pp({"image": tf.constant(image), "seed": tf.constant([i * 7919, i])})
    equal += np.array_equal(out["image"], out["b"])
  assert 16 < equal < 48


@pytest.mark.parametrize(
  ("pp", "expected"),
  [
    ("value_range(-1,1)", lambda x: x / 255 * 2 - 1),
    ("value_range(0,1)", lambda x: x / 255),
    ("value_range(0,2,-255,255)", lambda x: (x + 255) / 510 * 2),
    (
      "normalize()",
      lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    ),
    ("normalize(0.5, 0.25)", lambda x: (x / 255 - 0.5) / 0.25),
    (
      "vgg_value_range((1,2,3),(4,5,6))",
      lambda x: (x - [1, 2, 3]) / [4, 5, 6],
    ),
  ],
)
def test_normalising_on_the_device(pp, expected):
  image = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3) * 2
  pp = builder.build(pp)
  out = jax.jit(pp.on_device)({"image": image})["image"]
  assert out.dtype == np.float32
  np.testing.assert_allclose(
    out, expected(image.astype(np.float64)), atol=1e-6, rtol=1e-6
  )
  statistics = json.loads(json.dumps(pp.pixel_statistics))["image"]
  again = (image - np.array(statistics["mean"])) / np.array(statistics["std"])
  np.testing.assert_allclose(out, again, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
  "pp",
  [
    "decode(channels=1)|random_crop(8, padding=2)|flip_lr",
    "decode|random_shift(2)|color_jitter(0.5, 0.5, 0.5)|three_augment()",
    "decode|grayscale(0.5)|gaussian_blur(0.5)|randaug(2, 10)",
    "decode_jpeg_and_inception_crop(6, max_pixels=99)|value_range(-1, 1)",
    "decode|inception_crop((6, 4))|timm_randaug('rand-m9-n2')|normalize",
    "decode|simple_random_crop(6)|value_range(-1, 1)",
  ],
)
def test_without_chance_seeds_change_nothing(pp):
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)

  def results(pp):
    preprocess = builder.build(pp)
    seeds = (tf.constant([i, i], tf.int32) for i in range(8))
    outs = [preprocess({"image": tf.constant(image), "seed": x}) for x in seeds]
    shape = outs[0]["image"].shape
    return shape, {out["image"].numpy().tobytes() for out in outs}

  shape, varied = results(pp)
  same_shape, same = results(builder.without_chance(pp))
  assert len(varied) > 1
  assert len(same) == 1
  assert same_shape == shape


def test_without_chance_no_other_op_changes():
  assert builder.without_chance("") == ""
  pp = "decode|flip_lr|resize(8, antialias=True)|keep('image')"
  want = "decode|resize(8, antialias=True)|keep('image')"
  assert builder.without_chance(pp) == want
  jpeg = "decode_jpeg_and_inception_crop(8, orient=False, max_pixels=99)"
  assert builder.without_chance(jpeg) == (
    "decode(orient=False, max_pixels=99, key='image')"
    "|resize(8, antialias=True, key='image')"
  )


def test_op_tables_must_not_overlap():
  with pytest.raises(ValueError, match=r"twice.*flip_lr"):
    builder._merge({"flip_lr": None}, {"flip_lr": None})
