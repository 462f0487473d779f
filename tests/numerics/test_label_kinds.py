"""Losses and metrics of several classes, probabilities, numbers, and unknowns.

Against scikit-learn, and against the definitions.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from jax.sharding import AxisType, Mesh
from sklearn import metrics as sklearn

from vitjax import losses, mixing, objectives
from vitjax import step as step_lib
from vitjax.config.schema import ConfigError, Mixing
from vitjax.data.pp import builder
from vitjax.data.sources.arrays import ArraySource
from vitjax.data.tf import tf
from vitjax.evaluate import answers, outputs
from vitjax.evaluators import base, classification, multi_label, regression
from vitjax.parallel import sharding
from vitjax.program.labels import (
  check_labels,
  target_scale,
  weights_of_classes,
)

KEY = jax.random.key(0)
NO_MIXING = functools.partial(mixing.augment_known, binary=True)
# A model whose outputs are its images: (b, 1, 1, n) -> (b, n).
AS_GIVEN = types.SimpleNamespace(
  apply=lambda variables, image, **_: ((image[:, 0, 0], {}), {})
)


# Once on eight devices; the others, on each number of devices, take long.
SEEDS = (
  2,
  *(
    pytest.param(seed, marks=pytest.mark.slow)
    for seed in range(12)
    if seed != 2
  ),
)


class Rows(ArraySource):
  """Images whose one pixel is their number, with targets of some kind."""

  def __init__(self, kind, targets, labels=None):
    count, width = np.shape(targets)
    images = np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1)
    ids = np.zeros(count, np.int32) if labels is None else labels
    names = [f"c{i}" for i in range(width)]
    super().__init__("rows", "all", images, ids, names)
    self.kind, self.labels = kind, labels
    self.targets = np.asarray(targets, np.float32)
    self.has_unknown = bool(np.isnan(targets).any())
    if labels is not None:
      self.has_unknown |= bool((labels < 0).any())

  def fetch(self, indices):
    found = super().fetch(indices)
    if self.kind != "single_label":
      found["labels"] = tf.gather(self.targets, indices)
    if self.labels is None:
      del found["label"]
    return found


def mesh_of(num_devices):
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def predict(params, batch):
  """The outputs for each image: its pixel is its row among `params`."""
  row = batch["image"].reshape(len(batch["image"])).astype(jnp.int32)
  return params[row], {}


def data_of(source, devices=1, batch=64):
  return base.EvalData(source, builder.build(""), batch, mesh_of(devices))


def evaluate(evaluator, params):
  got = list(evaluator.run(jnp.asarray(params, jnp.float32)))
  assert [name for name, _ in got] == list(evaluator.metrics)
  assert all(type(value) in (int, float) for _, value in got)
  return dict(got)


def random_size(seed):
  """Images, outputs, devices and batch size."""
  rng = np.random.default_rng(seed)
  devices = (1, 2, 8)[seed % 3]
  batch = int(rng.integers(1, 16 // devices + 1)) * devices
  return (
    rng,
    int(rng.integers(1, 201)),
    int(rng.integers(1, 51)),
    devices,
    batch,
  )


@pytest.mark.parametrize("seed", SEEDS)
def test_several_classes_against_scikit_learn(seed):
  rng, m, n, devices, batch = random_size(seed)
  y = (rng.random((m, n)) < rng.choice([0, 0.1, 0.5], n)).astype(np.float32)
  y[rng.integers(m), rng.integers(n)] = 1
  logits = (rng.normal(size=(m, n)) + y).astype(np.float32)
  data = data_of(Rows("multi_label", y), devices, batch)
  evaluator = multi_label.Evaluator(
    predict, data, threshold=0.6, metrics=multi_label.BY_CLASS
  )
  got = evaluate(evaluator, logits)
  guess = scipy.special.expit(logits.astype(np.float64)) >= 0.6
  occurs = np.flatnonzero(y.any(axis=0))
  precision, recall, f1, support = (
    sklearn.precision_recall_fscore_support(
      y, guess, labels=range(n), zero_division=0
    )
    if n > 1
    else [
      np.array([x])
      for x in (
        sklearn.precision_score(y[:, 0], guess[:, 0], zero_division=0),
        sklearn.recall_score(y[:, 0], guess[:, 0], zero_division=0),
        sklearn.f1_score(y[:, 0], guess[:, 0], zero_division=0),
        y.sum(),
      )
    ]
  )
  ap = np.array(
    [sklearn.average_precision_score(y[:, c], logits[:, c]) for c in occurs]
  )
  want = {
    "loss": -(
      y * np.log(scipy.special.expit(logits))
      + (1 - y) * np.log(scipy.special.expit(-logits))
    )
    .sum(axis=1)
    .mean(),
    "mAP": ap.mean(),
    "micro_ap": sklearn.average_precision_score(y.ravel(), logits.ravel()),
    "macro_f1": f1[occurs].mean(),
    "micro_f1": sklearn.f1_score(y.ravel(), guess.ravel(), zero_division=0),
    "exact_match": (y == guess).all(axis=1).mean(),
    "n_seen": m,
  }
  if n > 1:
    exact = sklearn.accuracy_score(y, guess)
    assert want["exact_match"] == pytest.approx(exact)
  for c in range(n):
    there = c in occurs
    want[f"ap[c{c}]"] = ap[list(occurs).index(c)] if there else np.nan
    want[f"recall[c{c}]"] = recall[c] if there else np.nan
    want[f"precision[c{c}]"] = precision[c]
    want[f"f1[c{c}]"] = f1[c]
    want[f"support[c{c}]"] = support[c]
  assert got == pytest.approx(want, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_against_scikit_learn(seed):
  rng, m, n, devices, batch = random_size(seed)
  m = max(m, 2)
  mean, deviation = rng.normal(size=n) * 9, rng.uniform(0.1, 50, n)
  scale = (mean.astype(np.float32), deviation.astype(np.float32))
  y = (rng.normal(size=(m, n)) * deviation + mean).astype(np.float32)
  y[:, rng.random(n) < 0.2] = 3.0  # some are always the same
  normal = rng.normal(size=(m, n)).astype(np.float32)
  guess = normal * scale[1] + scale[0]
  data = data_of(Rows("regression", y), devices, batch)
  evaluator = regression.Evaluator(predict, data, target_scale=scale)
  got = evaluate(evaluator, normal)
  fns = {
    "mae": sklearn.mean_absolute_error,
    "rmse": sklearn.root_mean_squared_error,
    "r2": sklearn.r2_score,
  }
  want = {name: fn(y, guess) for name, fn in fns.items()}
  want["loss"] = (((y - scale[0]) / scale[1] - normal) ** 2).mean()
  want["n_seen"] = m
  for name, fn in fns.items():
    each = fn(y, guess, multioutput="raw_values")
    if n > 1:
      want |= {f"{name}[c{i}]": value for i, value in enumerate(each)}
  assert got == pytest.approx(want, rel=1e-4, abs=1e-6)


def test_unknown_labels_are_in_no_metric():
  """What is predicted for them changes nothing."""
  y = np.array([[1, 0], [np.nan, 1], [0, np.nan], [np.nan, np.nan]], np.float32)
  logits = np.array([[2, -1], [0, -3], [1, 0], [0, 0]], np.float32)
  found = []
  for unknown in (-50.0, 50.0):
    given = np.where(np.isnan(y), unknown, logits)
    data = data_of(Rows("multi_label", y), 8, 8)
    evaluator = multi_label.Evaluator(predict, data, metrics=("f1", "support"))
    found.append(evaluate(evaluator, given))
  assert found[0] == found[1]
  assert found[0]["mAP"] == 0.75
  assert found[0]["support[c1]"] == 1
  # Right: (1, 0) of the first. Wrong: 1 of the second, 0 of the third.
  assert found[0]["exact_match"] == pytest.approx(1 / 3)
  log = np.log(scipy.special.expit([2, 1, -3, -1]))
  assert found[0]["loss"] == pytest.approx(-log.mean() * 2, rel=1e-5)

  data = data_of(Rows("regression", y), 8, 8)
  scale = (np.zeros(2, np.float32), np.ones(2, np.float32))
  evaluator = regression.Evaluator(predict, data, target_scale=scale)
  got = evaluate(evaluator, logits)
  assert got["mae[c0]"] == 1.0 and got["mae[c1]"] == 2.5
  assert got["mae"] == 1.75 and got["loss"] == pytest.approx((2 + 17) / 4)


def test_outputs_that_are_not_finite_are_wrong():
  y = np.array([[1, 0], [0, 1]])
  evaluator = multi_label.Evaluator(predict, data_of(Rows("multi_label", y)))
  got = evaluate(evaluator, [[np.nan, -9], [-9, 9]])
  assert np.isnan(got["mAP"]) and got["exact_match"] == 0.5
  assert got["micro_f1"] == pytest.approx(2 / 3)


def test_unknown_classes_are_in_no_metric():
  """The same as without their images, but for n_seen."""
  rng = np.random.default_rng(0)
  label = rng.integers(0, 7, 40).astype(np.int32)
  label[::3] = -1
  logits = rng.normal(size=(40, 7)).astype(np.float32)
  known = label >= 0
  names = ("recall", "auroc", "majority")

  def metrics(logits, label, devices):
    source = Rows("single_label", np.zeros((len(label), 7)), label)
    data = data_of(source, devices, 8)
    evaluator = classification.Evaluator(predict, data, metrics=names)
    found = evaluate(evaluator, logits)
    given = answers.Evaluator(predict, data).answers(jnp.asarray(logits))
    assert given.values["acc@1"].mean() == pytest.approx(found["acc@1"])
    rows = list(given.rows())
    assert [row["label"] is None for row in rows] == list(label < 0)
    return found

  got = metrics(logits, label, 8)
  assert (got.pop("n_seen"), got.pop("n_counted")) == (40, known.sum())
  want = metrics(logits[known], label[known], 1)
  assert want.pop("n_seen") == known.sum()
  assert got == pytest.approx(want)


def test_soft_labels_in_an_evaluation():
  """The loss is of all probabilities, the accuracy of the largest."""
  shares = np.array([[0.6, 0.4, 0], [0, 0.5, 0.5], [np.nan] * 3], np.float32)
  logits = np.log([[0.2, 0.7, 0.1], [0.1, 0.5, 0.4], [0.2, 0.2, 0.6]])
  source = Rows("soft_label", shares, np.array([0, 1, -1], np.int32))
  got = evaluate(classification.Evaluator(predict, data_of(source)), logits)
  each = -(shares * logits).sum(axis=1)[:2]
  assert got["loss"] == pytest.approx(each.mean(), rel=1e-5)
  assert (got["acc@1"], got["n_counted"]) == (0.5, 2)
  given = answers.Evaluator(predict, data_of(source))
  found = given.answers(jnp.asarray(logits, jnp.float32))
  np.testing.assert_allclose(found.values["loss"], each, rtol=1e-5)


def bounds(values):
  """Of the percentile bootstrap, of values that are not NaN."""
  known = np.asarray(values)[~np.isnan(values)]
  return tuple(np.percentile(known, (2.5, 97.5))) if len(known) else None


def drawn(count, resamples):
  """The rows of each resample, as the documentation says."""
  rng = np.random.default_rng(0)
  return [rng.integers(count, size=count) for _ in range(resamples)]


def test_intervals_of_several_classes_against_scikit_learn():
  """Of each resample anew; a row of which nothing is known is never drawn."""
  rng = np.random.default_rng(0)
  y = (rng.random((30, 4)) < (0.5, 0.3, 0.05, 0)).astype(np.float32)
  y[4, 2] = 1
  y[7] = np.nan
  logits = (rng.normal(size=(30, 4)) + np.nan_to_num(y)).astype(np.float32)
  data = data_of(Rows("multi_label", y), 8, 16)
  evaluator = multi_label.Evaluator(predict, data, metrics=("ap", "recall"))
  given = outputs.answers("multi_label", evaluator, jnp.asarray(logits))
  got = given.intervals(40)
  assert got == given.intervals(40)
  known = np.delete(np.arange(30), 7)
  mean_ap, f1, recall, loss = [], [], [], []
  for rows in drawn(29, 40):
    truth, x = y[known][rows], logits[known][rows].astype(np.float64)
    guess = scipy.special.expit(x) >= 0.5
    each = [
      sklearn.average_precision_score(truth[:, c], x[:, c])
      for c in range(4)
      if truth[:, c].any()
    ]
    mean_ap.append(np.mean(each))
    f1.append(sklearn.f1_score(truth.ravel(), guess.ravel()))
    hits = (guess & (truth == 1)).sum(axis=0)[2]
    recall.append(hits / n if (n := truth[:, 2].sum()) else np.nan)
    loss.append(-np.log(scipy.special.expit(x * (2 * truth - 1))).sum(1).mean())
  for name, values in (
    ("mAP", mean_ap),
    ("micro_f1", f1),
    ("recall[c2]", recall),
    ("loss", loss),
  ):
    assert got[name] == pytest.approx(bounds(values), rel=1e-6), name
  assert np.isnan(recall).any() and "ap[c3]" not in got
  assert {*got} == {*evaluator.metrics} - {"n_seen", "ap[c3]", "recall[c3]"}


def test_intervals_of_numbers_against_scikit_learn():
  rng = np.random.default_rng(0)
  y = rng.normal(size=(25, 2)).astype(np.float32) * 5 + 3
  normal = rng.normal(size=(25, 2)).astype(np.float32)
  scale = (np.float32([3, 2]), np.float32([5, 4]))
  data = data_of(Rows("regression", y), 8, 16)
  evaluator = regression.Evaluator(predict, data, target_scale=scale)
  given = outputs.answers("regression", evaluator, jnp.asarray(normal))
  got = given.intervals(30)
  guess = normal * scale[1] + scale[0]
  for name, fn in (
    ("mae", sklearn.mean_absolute_error),
    ("rmse", sklearn.root_mean_squared_error),
    ("r2", sklearn.r2_score),
  ):
    want = [fn(y[rows], guess[rows]) for rows in drawn(25, 30)]
    assert got[name] == pytest.approx(bounds(want), rel=1e-5), name
    want = [fn(y[rows, 1], guess[rows, 1]) for rows in drawn(25, 30)]
    assert got[f"{name}[c1]"] == pytest.approx(bounds(want), rel=1e-5), name
  assert {*got} == {*evaluator.metrics} - {"n_seen"}


def test_rows_of_examples():
  y = np.array([[1, np.nan], [0, 1]], np.float32)
  evaluator = multi_label.Evaluator(predict, data_of(Rows("multi_label", y)))
  params = jnp.zeros((2, 2), jnp.float32)
  given = outputs.answers("multi_label", evaluator, params)
  text = answers.to_text({"val": given}, ".csv").splitlines()
  assert text[0] == "eval,file,label[c0],output[c0],label[c1],output[c1]"
  assert text[1].startswith("val,") and text[1].endswith(",1.0,0.5,,0.5")
  text = answers.to_text({"val": given}, ".jsonl").splitlines()
  assert '"labels": {"c0": 1.0, "c1": null}' in text[0]


@pytest.mark.parametrize(
  ("evaluator", "kind", "message"),
  [
    (
      classification,
      "multi_label",
      "any number of classes.*type='multi_label'",
    ),
    (classification, "regression", "has numbers.*type='regression'"),
    (multi_label, "soft_label", "a probability of each.*type='classification'"),
    (multi_label, "regression", "has numbers: use type='regression'"),
  ],
)
def test_evaluators_of_another_kind(evaluator, kind, message):
  data = data_of(Rows(kind, np.zeros((2, 2))))
  with pytest.raises(ValueError, match=message):
    evaluator.Evaluator(predict, data)


def loss_of(objective, rows):
  rows = {name: jnp.asarray(x) for name, x in rows.items()}
  prepared = objective.prepare(rows, KEY)
  loss, _ = objective.loss({}, prepared, KEY)
  return loss, prepared


def rows_of(outputs, **labels):
  return {"image": np.float32(outputs)[:, None, None], **labels}


def test_loss_of_several_classes_as_in_pytorch():
  """`BCEWithLogitsLoss(pos_weight=)`, the mean over the known labels."""
  rng = np.random.default_rng(1)
  x = rng.normal(size=(6, 4)).astype(np.float32)
  y = rng.integers(0, 2, (6, 4)).astype(np.float32)
  y[rng.random((6, 4)) < 0.3] = np.nan
  weight = np.float32([1, 5, 0.5, 2])
  objective = objectives.per_output(
    AS_GIVEN,
    loss_fn=losses.OUTPUT_LOSSES["sigmoid_xent_mean"],
    augment_known=NO_MIXING,
    class_weights=weight.tolist(),
  )
  got, _ = loss_of(objective, rows_of(x, labels=y))
  p = scipy.special.expit(x)
  each = -(weight * y * np.log(p) + (1 - y) * np.log(1 - p))
  np.testing.assert_allclose(got, np.nanmean(each), rtol=1e-5)


@pytest.mark.parametrize(
  ("name", "loss"),
  [
    ("mse", lambda e: e**2),
    ("huber", lambda e: np.where(abs(e) < 1, e**2 / 2, abs(e) - 0.5)),
  ],
)
def test_loss_of_numbers(name, loss):
  """The mean over the known targets, normalised."""
  x = np.float32([[0, 2], [1, -1], [3, 0.5]])
  y = np.float32([[5, 100], [np.nan, 300], [7, np.nan]])
  scale = (np.float32([6, 200]), np.float32([1, 100]))
  objective = objectives.per_output(
    AS_GIVEN,
    loss_fn=losses.OUTPUT_LOSSES[name],
    augment_known=NO_MIXING,
    scale=scale,
  )
  got, _ = loss_of(objective, rows_of(x, labels=y))
  want = np.nanmean(loss((y - scale[0]) / scale[1] - x))
  np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("class_weights", [None, (1.0, 5.0, 0.5)])
def test_loss_with_unknown_classes_as_in_pytorch(class_weights):
  """`CrossEntropyLoss(weight=, ignore_index=-1)`."""
  rng = np.random.default_rng(2)
  x = rng.normal(size=(5, 3)).astype(np.float32)
  label = np.array([0, -1, 2, 1, -1])
  objective = objectives.classification(
    AS_GIVEN,
    loss_fn=losses.softmax_xent,
    num_classes=3,
    class_weights=class_weights,
    augment_known=functools.partial(mixing.augment_known, binary=False),
  )
  got, prepared = loss_of(objective, rows_of(x, label=label))
  weight = np.ones(3) if class_weights is None else np.array(class_weights)
  weight = np.where(label < 0, 0, weight[label])
  each = -np.log(scipy.special.softmax(x, axis=1))[np.arange(5), label]
  np.testing.assert_allclose(
    got, (weight * each).sum() / weight.sum(), rtol=1e-5
  )
  got, prepared = loss_of(objective, rows_of(x, label=np.full(5, -1)))
  assert got == 0 and np.isfinite(prepared["weight"]).all()


def test_sigmoid_focal_by_its_definition():
  x = jnp.float32([[-2, 0.5, 3]])
  y = jnp.float32([[1, 0, 1]])
  p = np.where(y == 1, scipy.special.expit(x), scipy.special.expit(-x))
  want = (-((1 - p) ** 2) * np.log(p)).sum(axis=1)
  np.testing.assert_allclose(losses.sigmoid_focal(x, y), want, rtol=1e-5)


@pytest.mark.parametrize(
  "options", [{"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}]
)
def test_mixed_loss_is_the_mixture_of_the_known_losses(options):
  rng = np.random.default_rng(3)
  y = jnp.float32(rng.integers(0, 2, (8, 5)))
  known = jnp.float32(rng.random((8, 5)) < 0.6)
  # The mean of an image tells the share of its own pixels: 1 next to 0.
  image = np.zeros((8, 16, 16, 1), np.float32)
  image[::2] = 1
  image, labels, weights = mixing.augment_known(
    jnp.asarray(image), y, known, KEY, binary=True, mode="elem", **options
  )
  share = np.array(image.mean(axis=(1, 2)))
  share[1::2] = 1 - share[1::2]
  x = jnp.float32(rng.normal(size=(8, 5)))
  got = weights * losses.binary_xent(x, labels)
  want = share * known * losses.binary_xent(x, y) + (1 - share) * jnp.roll(
    known, 1, axis=0
  ) * losses.binary_xent(x, jnp.roll(y, 1, axis=0))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
  assert 0 < share.min() < 0.9


def test_smoothing_of_several_classes_is_of_each():
  image = jnp.zeros((1, 2, 2, 1))
  y, known = jnp.float32([[1, 0, 0]]), jnp.ones((1, 3))
  for binary, want in (
    (True, [0.9, 0.1, 0.1]),
    (False, [0.8 + 0.2 / 3] + [0.2 / 3] * 2),
  ):
    _, labels, _ = mixing.augment_known(
      image, y, known, KEY, binary=binary, label_smoothing=0.2
    )
    np.testing.assert_allclose(labels, [want], rtol=1e-6)


LINEAR = types.SimpleNamespace(
  apply=lambda variables, image, **_: (
    (image.reshape(len(image), -1) @ variables["params"]["w"], {}),
    {},
  )
)


def train(kind, devices, parts):
  """Parameters after some steps on batches with many unknown labels."""
  tx = optax.sgd(0.1)
  augment = functools.partial(
    mixing.augment_known, binary=kind == "multi_label"
  )
  if kind == "single_label":
    objective = objectives.classification(
      LINEAR,
      loss_fn=losses.softmax_xent,
      num_classes=3,
      class_weights=(1, 2, 3),
      augment_known=augment,
    )
  else:
    is_regression = kind == "regression"
    objective = objectives.per_output(
      LINEAR,
      loss_fn=losses.OUTPUT_LOSSES["mse" if is_regression else "sigmoid_xent"],
      augment_known=augment,
      scale=(np.zeros(3, np.float32), np.full(3, 2, np.float32)),
      class_weights=None if is_regression else (1, 2, 3),
    )
  step = jax.jit(
    step_lib.make_train_step(
      objective,
      tx,
      normalise=lambda x: x,
      seed=0,
      schedule=lambda step: 1.0,
      learning_rate=0.1,
      accumulation_steps=parts,
    )
  )
  state = step_lib.make_state({"w": jnp.zeros((12, 3))}, tx)
  rng = np.random.default_rng(4)
  placed = sharding.over_batch(mesh_of(devices))
  for _ in range(4):
    labels = rng.integers(0, 2, (32, 3)).astype(np.float32) * 2
    labels[rng.random((32, 3)) < 0.7] = np.nan
    label = rng.integers(-1, 3, 32)
    batch = {"image": rng.normal(size=(32, 2, 2, 3)).astype(np.float32)}
    batch |= {"label": label} if kind == "single_label" else {"labels": labels}
    state, _ = step(state, jax.device_put(batch, placed))
  return np.asarray(state.params["w"])


@pytest.mark.parametrize(
  "kind",
  [
    "single_label",
    "multi_label",
    pytest.param("regression", marks=pytest.mark.slow),
  ],
)
def test_weights_are_those_of_the_global_batch(kind):
  """Neither devices nor micro-batches change what is learned."""
  want = train(kind, 1, 1)
  assert np.abs(want).max() > 0.02
  np.testing.assert_allclose(train(kind, 8, 4), want, atol=2e-6)


def config(loss, class_weights=None, target_threshold=None, **options):
  return types.SimpleNamespace(
    loss=loss,
    class_weights=class_weights,
    target_threshold=target_threshold,
    mixing=Mixing(**options.pop("mixing", {})),
    input=types.SimpleNamespace(sampling=options.pop("sampling", None)),
    num_classes=options.pop("num_classes", None),
  )


@pytest.mark.parametrize(
  ("kind", "given", "message"),
  [
    (
      "multi_label",
      {"loss": "softmax_xent"},
      "any number of classes. Use one of",
    ),
    (
      "regression",
      {"loss": "sigmoid_xent"},
      "has numbers. Use one of mse, huber",
    ),
    ("single_label", {"loss": "mse"}, "one class.*add :regression=label"),
    (
      "regression",
      {"loss": "mse", "mixing": {"label_smoothing": 0.1}},
      "label_smoothing=0.1 does not fit rows: its targets are numbers",
    ),
    (
      "regression",
      {"loss": "mse", "class_weights": "balanced"},
      "class_weights",
    ),
    (
      "soft_label",
      {"loss": "softmax_xent", "target_threshold": 0.5},
      "target_threshold=0.5 does not fit",
    ),
    (
      "multi_label",
      {"loss": "sigmoid_xent", "sampling": "balanced"},
      "sampling='balanced': each image of 'rows' has any number of classes",
    ),
  ],
)
def test_settings_without_a_meaning_are_refused(kind, given, message):
  source = Rows(kind, np.zeros((2, 2)))
  with pytest.raises(ConfigError, match=message):
    check_labels(config(**given), source)


def test_sampling_needs_all_classes():
  source = Rows("single_label", np.zeros((3, 2)), np.array([0, -1, 1]))
  given = config("softmax_xent", sampling="sqrt")
  with pytest.raises(
    ConfigError, match=r"sampling='sqrt' does not fit.*unknown"
  ):
    check_labels(given, source)
  given = config("softmax_xent", class_weights="balanced")
  check_labels(given, source)
  assert weights_of_classes(given, source, 2) == [1.0, 1.0]


def test_balanced_weights_of_several_classes():
  """Of the positive images: negative / positive, of those that are known."""
  y = [[1, 0, 0], [0, 0, 0], [0, 1, 0], [np.nan, 1, 0]]
  source = Rows("multi_label", np.float32(y))
  given = config("sigmoid_xent", class_weights="balanced")
  check_labels(given, source)
  assert weights_of_classes(given, source, 3) == [2.0, 1.0, 1.0]


def test_scale_of_targets():
  y = np.float32([[1, 5, 0], [3, 5, np.nan], [8, 5, 4]])
  mean, deviation = target_scale(Rows("regression", y))
  np.testing.assert_allclose(mean, [4, 5, 2])
  np.testing.assert_allclose(deviation, [np.std([1, 3, 8]), 1, 2], rtol=1e-6)
  y[:, 1] = np.nan
  with pytest.raises(ConfigError, match="c1 is unknown for all images"):
    target_scale(Rows("regression", y))
