"""Label sets beside the plain one: ReaL, other data, parts of the classes."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from jax.sharding import AxisType, Mesh

from vitjax.data import sources
from vitjax.data.pp import builder
from vitjax.evaluators import base, classification
from vitjax.evaluators.classes import Classes
from vitjax.parallel import sharding

COUNT = 53
RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(48, 1000)).astype(np.float32)
# Grey stripes, which JPEG hardly changes.
IMAGES = RNG.integers(0, 256, (COUNT, 4, 1, 1), np.uint8)
IMAGES = np.tile(IMAGES, (1, 1, 4, 3))
# The few classes that these images look like, so that some are right.
BEST = ((IMAGES.reshape(COUNT, -1) - 127.5) @ WEIGHTS).argsort(1)
LABEL = np.where(RNG.random(COUNT) < 0.5, BEST[:, -1], BEST[:, -2])
# None, one or several acceptable labels.
REAL = [
  [int(x) for x in RNG.permutation(BEST[i, -4:])[: i % 4]] for i in range(COUNT)
]


def predict(params, batch):
  pixels = batch["image"].reshape(len(batch["image"]), -1)
  return (pixels.astype(jnp.float32) - 127.5) @ params, {}


def mesh_of(num_devices):
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """The data sets of TFDS, with 53 small images in their own features."""
  folder = tmp_path_factory.mktemp("tfds")
  tfds.disable_progress_bar()
  for name, split in (
    ("imagenet2012_real", "validation"),
    ("imagenet_v2/matched-frequency", "test"),
    ("imagenet_a", "test"),
  ):
    made = tfds.builder(name, data_dir=folder)
    features = made.info.features
    made._split_generators = lambda _, split=split, features=features: {
      split: examples(features)
    }
    made.download_and_prepare()
  return folder


def examples(features):
  for i in range(COUNT):
    row = {"image": IMAGES[i], "file_name": f"ILSVRC2012_val_{i:08d}.JPEG"}
    if "label" in features:
      row["label"] = int(LABEL[i])
    else:
      row |= {"original_label": int(LABEL[i]), "real_label": REAL[i]}
    yield i, row


def open_data(data, split, data_dir, batch_size=16, num_devices=1):
  source = sources.open_source(data, split, data_dir=str(data_dir))
  preprocess = builder.build("decode|resize(4)|keep('image', 'label')")
  if source.data == "imagenet2012_real":
    preprocess = builder.build("decode|resize(4)")
  return base.EvalData(source, preprocess, batch_size, mesh_of(num_devices))


def logits_of(data):
  """(n, 1000) in float64, of what the pipeline reads."""
  rows = base.Collected(lambda _, batch: {"image": batch["image"]}, data)({})
  x = np.asarray(rows["image"], np.float64).reshape(COUNT, -1) - 127.5
  return x @ WEIGHTS.astype(np.float64)


def order_of(data):
  """Records are shuffled when they are written: the example of each row."""
  images = base.Collected(lambda _, b: {"image": b["image"]}, data)({})["image"]
  distance = (
    (images.reshape(COUNT, 1, -1).astype(float) - IMAGES.reshape(1, COUNT, -1))
    ** 2
  ).sum(-1)
  order = distance.argmin(axis=1)
  assert sorted(order) == list(range(COUNT))
  return order


@pytest.mark.parametrize("batch_size, num_devices", [(20, 1), (16, 8)])
def test_real_labels(data_dir, batch_size, num_devices):
  data = open_data(
    "imagenet2012_real", "validation", data_dir, batch_size, num_devices
  )
  evaluator = classification.Evaluator(predict, data, labels="real_label")
  got = dict(evaluator.run(WEIGHTS))
  assert tuple(got) == evaluator.metrics
  guess = logits_of(data).argmax(axis=1)
  right = [
    guess[row] in REAL[i] for row, i in enumerate(order_of(data)) if REAL[i]
  ]
  assert got == {
    "acc@1": pytest.approx(np.mean(right)),
    "n_counted": len(right),
    "n_seen": COUNT,
  }
  assert 0.2 < got["acc@1"] < 0.9 and 30 < len(right) < COUNT


def test_real_labels_of_other_class_ids(data_dir):
  """A model whose classes are the same in another order."""
  data = open_data("imagenet2012_real", "validation", data_dir)
  order = np.random.default_rng(1).permutation(1000)
  names = tuple(data.source.class_names[i] for i in order)
  want = dict(
    classification.Evaluator(predict, data, labels="real_label").run(WEIGHTS)
  )
  evaluator = classification.Evaluator(
    predict, data, labels="real_label", classes=Classes("mine", 1000, names)
  )
  assert dict(evaluator.run(WEIGHTS[:, order])) == want


@pytest.mark.parametrize(
  "data", ["imagenet_v2/matched-frequency", "imagenet_a"]
)
def test_other_test_sets_of_the_same_classes(data_dir, data):
  """ImageNet-v2 as it is; ImageNet-A also among its own classes."""
  data = open_data(data, "test", data_dir)
  names = data.source.class_names
  order = order_of(data)
  logits, label = logits_of(data), LABEL[order]
  model = Classes("imagenet2012", 1000, names)
  got = dict(
    classification.Evaluator(predict, data, classes=model).run(WEIGHTS)
  )
  assert got["acc@1"] == pytest.approx((logits.argmax(1) == label).mean())
  assert got["n_seen"] == COUNT

  present = np.unique(LABEL)
  among = dict(
    classification.Evaluator(predict, data, classes=model, among="present").run(
      WEIGHTS
    )
  )
  guess = present[logits[:, present].argmax(axis=1)]
  assert among["acc@1"] == pytest.approx((guess == label).mean())
  assert among["acc@1"] > got["acc@1"]
  assert among["loss"] < got["loss"]
  named = dict(
    classification.Evaluator(
      predict, data, classes=model, among=[names[i] for i in present]
    ).run(WEIGHTS)
  )
  assert named == among
  evaluator = classification.Evaluator(
    predict, data, classes=model, among=[names[i] for i in present[1:]]
  )
  outside = (LABEL == present[0]).sum()
  with pytest.raises(RuntimeError, match=f"{outside} examples of imagenet"):
    dict(evaluator.run(WEIGHTS))


def digits(n=300, batch_size=64, num_devices=1):
  source = sources.open_source("digits", f"all[:{n}]")
  return base.EvalData(
    source, builder.build(""), batch_size, mesh_of(num_devices)
  )


OF_DIGITS = np.random.default_rng(3).normal(size=(64, 12)).astype(np.float32)


def test_classes_are_matched_by_name():
  """The ten digits are scattered over the twelve classes of a model."""
  names = ("7", "hat", "1", "9", "0", "2", "bag", "5", "3", "8", "4", "6")
  data, model = digits(), Classes("mine", 12, names)
  evaluator = classification.Evaluator(predict, data, classes=model)
  got = dict(evaluator.run(OF_DIGITS))
  rows = data.source.fetch(np.arange(300))
  x = np.asarray(rows["image"], np.float64).reshape(300, -1) - 127.5
  guess = (x @ OF_DIGITS.astype(np.float64)).argmax(axis=1)
  want = [names[g] == str(y) for g, y in zip(guess, rows["label"].numpy())]
  assert got["acc@1"] == pytest.approx(np.mean(want))
  assert 0 < got["acc@1"] < 1


def test_focal_loss_gives_probabilities_of_a_softmax():
  data, params = digits(16, 16), OF_DIGITS[:, :10] / 1000
  evaluators = (
    classification.Evaluator(predict, data, loss=loss, calibration=True)
    for loss in ("focal", "softmax_xent")
  )
  got, want = (dict(x.run(params)) for x in evaluators)
  assert got["ece"] == want["ece"] and got["loss"] < want["loss"]


@pytest.mark.parametrize(
  ("model", "options", "message"),
  [
    (Classes("m", 12, tuple("abcdefghijkl")), {}, "10 of the 10 classes of 'd"),
    (Classes("m", 12, tuple("00123456789x")), {}, "'0' is several classes"),
    (Classes("m", 12), {}, "the class names of the model are unknown"),
    (Classes(None, 9, None), {"same_classes": True}, "but the model only 9"),
    (None, {"among": ["zero"]}, "'zero' is not the name of a class"),
    (None, {"among": "/no/such/file"}, "'/no/such/file' cannot be read"),
    (
      None,
      {"labels": "x", "calibration": True},
      "labels='x' cannot be combined",
    ),
    (
      None,
      {"loss": "sigmoid_xent", "calibration": True},
      "trained with 'sigmoid_xent'",
    ),
  ],
)
def test_refusals(model, options, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    classification.Evaluator(predict, digits(8, 8), classes=model, **options)


def test_a_model_without_names():
  """On its own data, or told that the ids are the same."""
  data = digits()
  for model, same in ((Classes("digits", 12), False), (Classes("m", 12), True)):
    got = dict(
      classification.Evaluator(
        predict, data, classes=model, same_classes=same
      ).run(OF_DIGITS)
    )
    assert 0 < got["acc@1"] < 1 and got["n_seen"] == 300
  unnamed = dataclasses.replace(data, source=data.source)
  unnamed.source.class_names = None
  with pytest.raises(ValueError, match="class names of 'digits' are unknown"):
    classification.Evaluator(
      predict, unnamed, classes=Classes("m", 12, tuple("abcdefghijkl"))
    )


@pytest.mark.parametrize("batch_size, num_devices", [(37, 1), (64, 8)])
@pytest.mark.parametrize("scale", [0.002, 1.0])
def test_calibration_error(scale, batch_size, num_devices):
  data = digits(203, batch_size, num_devices)
  weights = scale * OF_DIGITS[:, :10]
  evaluator = classification.Evaluator(predict, data, calibration=True)
  got = dict(evaluator.run(weights))
  assert tuple(got) == evaluator.metrics
  rows = data.source.fetch(np.arange(203))
  x = np.asarray(rows["image"], np.float64).reshape(203, -1) - 127.5
  logits, label = x @ weights.astype(np.float64), np.asarray(rows["label"])
  p = np.exp(logits - logits.max(1, keepdims=True))
  p /= p.sum(1, keepdims=True)
  confidence, right = p.max(axis=1), p.argmax(axis=1) == label
  want = 0.0
  for m in range(15):
    own = (confidence > m / 15) & (confidence <= (m + 1) / 15)
    if own.any():
      want += own.mean() * abs(right[own].mean() - confidence[own].mean())
  assert got["ece"] == pytest.approx(want, rel=1e-4)
  assert got["ece"] > 0.03


def test_confidences_on_the_edge_of_a_bin():
  """1 is in the last bin, and what is nearly 0 in the first."""
  logits = jnp.array([[200.0, 0.0], [0.0, 0.0]])
  sums = classification.calibration_sums(
    logits, jnp.array([0, 1]), jnp.array([True, True])
  )
  assert sums[14].tolist() == [1.0, 1.0]
  assert sums[7].tolist() == [0.5, 0.0]  # a tie is not right
  assert np.count_nonzero(sums) == 3
