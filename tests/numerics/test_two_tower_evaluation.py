"""Zero-shot accuracy and retrieval against loops over all pairs."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from jax.sharding import AxisType, Mesh

from vitjax.data import sources
from vitjax.data.pp import builder
from vitjax.data.sources.source import Source
from vitjax.evaluators import base, retrieval, zeroshot
from vitjax.parallel import sharding

WIDTH, MAX_LEN = 6, 4
RNG = np.random.default_rng(0)
PARAMS = {
  "image": RNG.normal(size=(64, WIDTH)).astype(np.float32),
  "text": RNG.normal(size=(50, WIDTH)).astype(np.float32),
}
TEMPLATES = ("{}", "a {} here", "no {}")


def predict(params, batch):
  """Linear towers: any error shows in what comes out."""

  def unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

  image = text = None
  if "image" in batch:
    pixels = batch["image"].reshape(len(batch["image"]), -1)
    image = unit(pixels.astype(jnp.float32) @ params["image"])
  if "text" in batch:
    text = unit(params["text"][batch["text"]].sum(axis=1))
  return image, text, {}


def tokenizer(texts):
  ids = [[sum(text.encode()) * k % 50 for k in range(1, 5)] for text in texts]
  return np.array(ids, np.int32)


class Captioned(Source):
  """The first digits with given texts, (n, k, t), and which of them count."""

  def __init__(self, n, text, mask):
    self._digits = sources.open_source("digits", f"all[:{n}]")
    self.data, self.split, self.num_examples = "captioned", "all", n
    self.image_shape = self._digits.image_shape
    self._text, self._mask = tf.constant(text), tf.constant(mask)

  def fetch(self, indices):
    return {
      **self._digits.fetch(indices),
      "text": tf.gather(self._text, indices),
      "text_mask": tf.gather(self._mask, indices),
    }


def data_of(source, batch_size, num_devices):
  devices = np.array(jax.devices()[:num_devices]).reshape(-1, 1, 1)
  mesh = Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 3)
  return base.EvalData(source, builder.build(""), batch_size, mesh)


def digits(n):
  return sources.open_source("digits", f"all[:{n}]")


def images_and_labels(n):
  rows = digits(n).fetch(np.arange(n))
  x = np.asarray(rows["image"], np.float64).reshape(n, -1) @ PARAMS["image"]
  return x / np.linalg.norm(x, axis=1, keepdims=True), np.asarray(rows["label"])


@pytest.mark.parametrize("batch_size, num_devices", [(37, 1), (64, 8)])
def test_zero_shot(batch_size, num_devices):
  n = 203
  evaluator = zeroshot.Evaluator(
    predict,
    data_of(digits(n), batch_size, num_devices),
    tokenizer=tokenizer,
    class_names=[f"digit {i}" for i in range(10)],
    templates=TEMPLATES,
  )
  evaluator.trace(jax.eval_shape(lambda: PARAMS))
  got = dict(evaluator.run(PARAMS))
  assert tuple(got) == evaluator.metrics

  classes = []
  for i in range(10):
    z = np.zeros(WIDTH)
    for template in TEMPLATES:
      ids = tokenizer([template.format(f"digit {i}")])[0]
      e = PARAMS["text"].astype(np.float64)[ids].sum(axis=0)
      z += e / np.linalg.norm(e)
    classes.append(z / np.linalg.norm(z))
  image, label = images_and_labels(n)
  order = np.argsort(-image @ np.array(classes).T, axis=1)
  assert got["acc@1"] == (order[:, 0] == label).mean()
  assert got["acc@5"] == (order[:, :5] == label[:, None]).any(axis=1).mean()
  assert got["n_seen"] == n
  assert 0.02 < got["acc@1"] < 0.5  # neither nothing nor all


def test_zero_shot_needs_a_name_for_each_class():
  data = data_of(digits(8), 8, 1)
  with pytest.raises(ValueError, match="'digits' needs the names of its 10"):
    zeroshot.Evaluator(
      predict, data, tokenizer=tokenizer, class_names=["one", "two"]
    )
  with pytest.raises(ValueError, match=r"one {}, not \['a photo'\]"):
    zeroshot.Evaluator(
      predict, data, tokenizer=tokenizer, templates=("a photo", "{}")
    )


@pytest.mark.parametrize("batch_size, num_devices", [(13, 1), (32, 8)])
def test_retrieval(batch_size, num_devices):
  """Images with one to three texts each, some of them the same."""
  n = 75
  rng = np.random.default_rng(1)
  text = rng.integers(0, 50, (n, 3, MAX_LEN)).astype(np.int32)
  text[10] = text[20]
  mask = np.arange(3) < rng.integers(1, 4, n)[:, None]
  data = data_of(Captioned(n, text, mask), batch_size, num_devices)
  evaluator = retrieval.Evaluator(predict, data)
  evaluator.trace(jax.eval_shape(lambda: PARAMS))
  got = dict(evaluator.run(PARAMS))
  assert tuple(got) == evaluator.metrics

  image, _ = images_and_labels(n)
  texts, owner = [], []
  for i, j in np.argwhere(mask):
    e = PARAMS["text"].astype(np.float64)[text[i, j]].sum(axis=0)
    texts.append(e / np.linalg.norm(e))
    owner.append(i)
  similarity, owner = image @ np.array(texts).T, np.array(owner)
  for k in (1, 5, 10):
    hits = []
    for i in range(n):
      best = similarity[i, owner == i].max()
      hits.append((similarity[i, owner != i] >= best - 1e-6).sum() < k)
    assert got[f"image_to_text_R@{k}"] == np.mean(hits)
    hits = []
    for j, i in enumerate(owner):
      others = np.delete(similarity[:, j], i)
      hits.append((others >= similarity[i, j] - 1e-6).sum() < k)
    assert got[f"text_to_image_R@{k}"] == np.mean(hits)
  assert got["n_texts"] == mask.sum() and got["n_seen"] == n
  assert 0 < got["image_to_text_R@10"] < 1


def test_ranks_in_blocks_and_of_useless_embeddings(monkeypatch):
  rng = np.random.default_rng(2)
  queries, keys = rng.normal(size=(2, 9, 4))
  ids = np.arange(9)
  want = retrieval.ranks(queries, keys, ids, ids)
  assert 0 < want.max() < 9
  monkeypatch.setattr(retrieval, "_MOST", 20)  # two queries at a time
  assert np.array_equal(retrieval.ranks(queries, keys, ids, ids), want)
  for bad in (np.ones((9, 4)), np.full((9, 4), np.nan)):
    assert (retrieval.ranks(bad, bad, ids, ids) == 8).all()


def test_an_image_without_text_is_an_error():
  text, mask = np.zeros((8, 2, MAX_LEN), np.int32), np.ones((8, 2), bool)
  mask[3] = False
  data = data_of(Captioned(8, text, mask), 8, 1)
  with pytest.raises(RuntimeError, match=r"1 image\(s\) have no text"):
    dict(retrieval.Evaluator(predict, data).run(PARAMS))


def test_a_lost_example_is_an_error_not_a_metric():
  data = data_of(digits(8), 8, 1)
  longer = types.SimpleNamespace(data="d", split="s", num_examples=9)
  batches = list(data.batches())
  collect = base.Collected(
    lambda params, batch: {"label": batch["label"]},
    dataclasses.replace(data, source=longer),
  )
  object.__setattr__(collect.data, "batches", lambda: iter(batches))
  with pytest.raises(RuntimeError, match="saw 8 examples instead of 9"):
    collect(PARAMS)
