"""Ops on texts: choose a caption, write one from a label, make token ids.

A text is a scalar string, or a vector of strings where an image has several.
Token ids reach the device as int32 under the key "text".
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vitjax.data import seeds, tokenizers
from vitjax.data.pp.kinds import AnyOp, Features, Op, is_chunk
from vitjax.data.pp.ops_general import require
from vitjax.data.tf import tf


def choice(*, inkey: str = "captions", outkey: str = "text") -> Op:
  """Takes one of an image's texts, drawn at random in each epoch.

  Args:
    inkey: feature with the texts.
    outkey: feature for the chosen text.
  """

  def run(features: Features) -> Features:
    require(features, (inkey,))
    texts = features[inkey]
    i = seeds.integers(features["seed"], tf.shape(texts)[0])
    return {**features, outkey: texts[i]}

  return run


def label_to_text(
  templates: Sequence[str] = ("{}",),
  *,
  class_names: Sequence[str] | None = None,
  inkey: str = "label",
  outkey: str = "text",
) -> AnyOp:
  """Writes a text about the class, from a random template.

  Args:
    templates: texts with one {} for the name of the class, such as "a photo of
      a {}.".
    class_names: names of the classes, in the order of their ids. None: the
      names that the data set has.
    inkey: feature with the class id.
    outkey: feature for the text.
  """
  if bad := [t for t in templates if t.count("{}") != 1] or not templates:
    raise ValueError(f"each template needs one {{}} for the name, not {bad}")

  def run(features: Features) -> Features:
    require(features, (inkey,))
    if class_names is None:
      raise ValueError(
        "label_to_text: the data set has no class names. Write them into the "
        "op: class_names=('cat', 'dog')."
      )
    texts = tf.constant([[t.format(n) for t in templates] for n in class_names])
    template = seeds.integers(features["seed"], len(templates))
    at = tf.stack([features[inkey], template], axis=-1)
    return {**features, outkey: tf.gather_nd(texts, at)}

  return AnyOp(run)


@dataclasses.dataclass(frozen=True)
class TokenizeOp(AnyOp):
  """The op that `tokenize` makes.

  Attributes:
    tokenizer: the function from texts to ids.
    facts: name, vocabulary file and length: arguments of `tokenizers.create`.
  """

  tokenizer: tokenizers.Tokenizer
  facts: dict[str, Any]


def tokenize(
  tokenizer: str,
  vocab: str,
  *,
  max_len: int,
  num_texts: int | None = None,
  inkey: str = "text",
) -> TokenizeOp:
  """Turns a text into token ids: the feature `text`, int32 [max_len].

  See `vitjax.data.tokenizers`.

  Args:
    tokenizer: "bert", "clip", "gemma", "hf_siglip", "open_clip_gemma",
      "open_clip_siglip", "sentencepiece" or "siglip".
    vocab: path of the tokenizer's vocabulary or model file.
    max_len: number of ids; longer texts are cut, shorter ones padded.
    num_texts: for images with several texts: keep the first `num_texts`. `text`
      is then [num_texts, max_len], and the feature `text_mask` is False where
      an image has fewer texts.
    inkey: feature with the text, or with several texts.
  """
  try:
    encode = tokenizers.create(tokenizer, vocab, max_len=max_len)
  except (OSError, ImportError) as e:
    raise ValueError(str(e)) from e

  def ids_of(texts: np.ndarray) -> np.ndarray:
    flat = [text.decode() for text in np.ravel(texts)]
    return encode(flat).reshape(*np.shape(texts), max_len)

  def run(features: Features) -> Features:
    require(features, (inkey,))
    texts = features[inkey]
    several = texts.shape.rank > is_chunk(features)
    if several and num_texts is None:
      raise ValueError(
        f"tokenize: {inkey!r} has several texts for one image; take one with "
        "choice(), or give num_texts."
      )
    ids = tf.numpy_function(ids_of, [texts], tf.int32, stateful=False)
    if not several:
      return {**features, "text": tf.ensure_shape(ids, (*texts.shape, max_len))}
    ids = ids[:num_texts]
    count = tf.shape(ids)[0]
    ids = tf.pad(ids, [[0, num_texts - count], [0, 0]])
    return {
      **features,
      "text": tf.ensure_shape(ids, (num_texts, max_len)),
      "text_mask": tf.range(num_texts) < count,
    }

  facts = {"name": tokenizer, "vocab": os.fspath(vocab), "max_len": max_len}
  return TokenizeOp(run, encode, facts)


OPS = {"choice": choice, "label_to_text": label_to_text, "tokenize": tokenize}
