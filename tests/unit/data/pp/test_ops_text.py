"""Texts: eagerly and in tf.data, one example and chunks of them."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from vitjax.data import pipeline, seeds, sources, tokenizers
from vitjax.data.pp import builder, ops_text

pytest.importorskip("tokenizers")

PIECES = "[PAD] [UNK] [CLS] a photo of cat dog ##s é"
TEXTS = ["A photo of cats", "", "dog é猫", "a " * 9]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  path.write_text("\n".join(PIECES.split()), encoding="utf-8")
  return str(path)


def examples(**features):
  """A chunk of examples, each with its seed."""
  n = len(next(iter(features.values())))
  return {
    **{k: tf.constant(v) for k, v in features.items()},
    "seed": seeds.example_seeds(0, tf.range(n, dtype=tf.int64), 2),
  }


@pytest.mark.parametrize("chunked", [False, True])
def test_tokenize_equals_the_tokenizer(vocab, chunked):
  """In one call and in a graph; é is two bytes."""
  op = ops_text.tokenize("bert", vocab, max_len=6)
  want = tokenizers.bert(vocab, max_len=6)(TEXTS)
  assert want[0].tolist() == [2, 3, 4, 5, 6, 8]
  chunk = examples(text=TEXTS)
  np.testing.assert_array_equal(op(chunk)["text"], want)
  dataset = tf.data.Dataset.from_tensor_slices(chunk)
  dataset = dataset.batch(2, drop_remainder=True) if chunked else dataset
  dataset = dataset.map(op)
  shape = (2, 6) if chunked else (6,)
  assert dataset.element_spec["text"] == tf.TensorSpec(shape, tf.int32)
  got = [x["text"] for x in dataset.as_numpy_iterator()]
  np.testing.assert_array_equal(np.reshape(got, (-1, 6)), want)
  assert op.facts == {"name": "bert", "vocab": vocab, "max_len": 6}


@pytest.mark.parametrize("count, mask", [(1, [1, 0]), (2, [1, 1]), (3, [1, 1])])
def test_tokenize_several_texts_of_an_image(vocab, count, mask):
  op = ops_text.tokenize(
    "bert", vocab, max_len=5, num_texts=2, inkey="captions"
  )
  want = np.zeros((2, 5), np.int32)
  want[:count] = tokenizers.bert(vocab, max_len=5)(TEXTS[:count])[:2]
  features = {"captions": tf.constant(TEXTS[:count]), "seed": tf.zeros(2)}
  dataset = tf.data.Dataset.from_tensors(features).map(op)
  assert dataset.element_spec["text"].shape == (2, 5)
  for out in (op(features), next(iter(dataset))):
    np.testing.assert_array_equal(out["text"], want)
    np.testing.assert_array_equal(out["text_mask"], np.array(mask, bool))


def test_choice_takes_each_caption_as_often():
  seed = seeds.example_seeds(0, tf.range(600, dtype=tf.int64), 2)
  dataset = tf.data.Dataset.from_tensor_slices({"seed": seed}).map(
    lambda x: {**x, "captions": tf.constant(["a", "b", "c"])}
  )
  dataset = dataset.map(ops_text.choice())
  drawn = [x["text"].decode() for x in dataset.as_numpy_iterator()]
  counts = [drawn.count(x) for x in "abc"]
  assert sum(counts) == 600
  assert min(counts) > 150  # 200 expected, standard deviation 12


def test_label_to_text():
  op = ops_text.label_to_text(("{}", "a {}."), class_names=("cat", "dog"))
  chunk = examples(label=np.arange(200, dtype=np.int32) % 2)
  texts = [x.decode() for x in op(chunk)["text"].numpy()]
  assert {*texts[::2]} == {"cat", "a cat."}
  assert {*texts[1::2]} == {"dog", "a dog."}
  dataset = tf.data.Dataset.from_tensor_slices(chunk).map(op)
  alone = [x["text"].decode() for x in dataset.as_numpy_iterator()]
  assert alone == texts


def test_names_of_the_classes_come_from_the_data_set(vocab):
  source = sources.open_source("digits", "train[:64]")
  pp = f"label_to_text(('a {{}}',))|tokenize('bert', '{vocab}', max_len=3)"
  preprocess = builder.build(pp, class_names=["cat", "dog"] * 5)
  batch = next(
    pipeline.train_batches(
      source, preprocess, batch_size=32, seed=0, start_step=0, total_steps=1
    )
  )
  want = np.where(batch["label"] % 2, 7, 6)
  np.testing.assert_array_equal(batch["text"][:, 2], want)
  assert batch["text"].dtype == np.int32
  assert preprocess.tokenize.facts["max_len"] == 3
  assert builder.build("flip_lr").tokenize is None


@pytest.mark.parametrize(
  ("pp", "message"),
  [
    ("label_to_text(('cat',))", r"needs one {} for the name, not \['cat'\]"),
    ("tokenize('bert', '/no/vocab.txt', max_len=4)", "vocabulary file '/no"),
    ("tokenize('word', 'VOCAB', max_len=4)", "tokenizer='word' does not exist"),
  ],
)
def test_what_cannot_be_built(pp, message, vocab):
  with pytest.raises(ValueError, match=message):
    builder.build(pp.replace("VOCAB", vocab))


def test_a_package_that_is_missing_is_named(vocab, monkeypatch):
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  with pytest.raises(ValueError, match=r'pip install "vitjax\[text\]"'):
    builder.build(f"tokenize('bert', '{vocab}', max_len=4)")


@pytest.mark.parametrize(
  ("pp", "features", "message"),
  [
    ("choice()", {"text": "a"}, "no feature 'captions'; there are"),
    ("label_to_text()", {"label": 0}, "has no class names"),
    (
      "tokenize('bert', 'VOCAB', max_len=4, inkey='captions')",
      {"captions": ["a", "b"]},
      r"'captions' has several texts for one image; take one with choice\(\)",
    ),
  ],
)
def test_what_an_example_lacks(pp, features, message, vocab):
  preprocess = builder.build(pp.replace("VOCAB", vocab))
  features = {k: tf.constant(v) for k, v in features.items()}
  with pytest.raises(ValueError, match=message):
    preprocess({**features, "seed": tf.zeros(2, tf.int32)})
