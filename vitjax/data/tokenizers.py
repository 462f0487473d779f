"""Tokenizers of the published text towers: texts in, token ids out.

Weights need the tokenizer that they were trained with, so length, padding and
lower-casing cannot be chosen. Needs the packages of `vitjax[text]`, but not
TensorFlow. Vocabularies are files beside the weights.

Not here: reading files from the web (`vitjax.weights.download.fetch`).
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from vitjax.config import extras, messages, places, shipped

Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """Callable on texts.

  Attributes:
    encode: maps texts to ids, with start or end tokens and without padding.
    fit: pads or cuts the ids of one text to `max_len` ids.
    vocab_size: number of different ids.
    max_len: number of ids per text.
  """

  encode: Callable[[list[str]], Iterable[Sequence[int]]]
  fit: Callable[[list[int]], list[int]]
  vocab_size: int
  max_len: int

  def __call__(self, texts: str | Sequence[str]) -> Int[np.ndarray, "b t"]:
    """Token ids (b, max_len) int32 of one text or of several."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    ids = [self.fit(list(x)) for x in self.encode(texts)]
    return np.asarray(ids, np.int32).reshape(len(texts), self.max_len)


def bert(vocab: Path, *, max_len: int = 16) -> Tokenizer:
  """Lower-cased WordPiece: [CLS], then pieces, then 0; never [SEP].

  Args:
    vocab: text file with one piece on each line; its number is the id.
    max_len: number of ids, [CLS] included.

  Raises:
    ValueError: if the file has no [CLS] or no [UNK].
  """
  with extras.needed("text", "models that read texts"):
    import tokenizers
  lines = _file(vocab).read_text(encoding="utf-8").split("\n")
  ids = {piece: i for i, piece in enumerate(lines) if piece}
  for piece in ("[CLS]", "[UNK]"):
    if piece not in ids:
      raise ValueError(
        f"{os.fspath(vocab)!r} has no line {piece}, so it is not a vocabulary "
        "of BERT: a text file (vocab.txt) with one word piece per line."
      )
  wordpiece = tokenizers.Tokenizer(
    tokenizers.models.WordPiece(ids, unk_token="[UNK]")
  )
  wordpiece.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
  wordpiece.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()

  def encode(texts):
    for encoding in wordpiece.encode_batch(texts, add_special_tokens=False):
      yield [ids["[CLS]"], *encoding.ids]

  def fit(ids):
    return (ids + [0] * max_len)[:max_len]

  return Tokenizer(encode, fit, max(ids.values()) + 1, max_len)


def sentencepiece(model: Path, *, max_len: int = 16) -> Tokenizer:
  """SentencePiece of LiT: pieces, then `</s>` up to `max_len`.

  The last id is always `</s>`, the token whose output is the embedding.
  Upper case is kept.

  Args:
    model: a SentencePiece `.model` file.
    max_len: number of ids, `</s>` included.
  """
  processor, eos = _processor(model)

  def fit(ids):
    return ids[: max_len - 1] + [eos] * (max_len - len(ids[: max_len - 1]))

  return Tokenizer(processor.encode, fit, len(processor), max_len)


def siglip(model: Path, *, max_len: int = 64) -> Tokenizer:
  """SentencePiece of SigLIP: lower case, pieces, `</s>`, then 1.

  A text that is too long loses its last pieces and keeps `</s>`. Lower case
  is Unicode's. Punctuation stays.

  Args:
    model: a SentencePiece `.model` file: c4_en or mc4.
    max_len: number of ids, `</s>` included.
  """
  processor, eos = _processor(model)
  return _lower_cased(processor, eos, pad=1, max_len=max_len)


def gemma(model: Path, *, max_len: int = 64) -> Tokenizer:
  """SentencePiece of SigLIP 2: as `siglip`, but padded with `<pad>`.

  Args:
    model: Gemma's SentencePiece `.model` file.
    max_len: number of ids, `<eos>` included.

  Raises:
    ValueError: if the file has no token for padding.
  """
  processor, eos = _processor(model)
  pad = processor.pad_id()
  if pad < 0:
    raise ValueError(
      f"{os.fspath(model)!r} has no token for padding, but Gemma's has: use "
      "gs://big_vision/gemma_tokenizer.model, or the tokenizer 'siglip' for "
      "the vocabularies of the first SigLIP."
    )
  return _lower_cased(processor, eos, pad=pad, max_len=max_len)


def _lower_cased(processor, eos: int, *, pad: int, max_len: int) -> Tokenizer:
  def encode(texts):
    return processor.encode([x.lower() for x in texts])

  def fit(ids):
    ids = ids[: max_len - 1] + [eos]
    return ids + [pad] * (max_len - len(ids))

  return Tokenizer(encode, fit, len(processor), max_len)


TOKENIZERS = {
  "bert": bert,
  "gemma": gemma,
  "sentencepiece": sentencepiece,
  "siglip": siglip,
}


def create(name: str, vocab: Path, *, max_len: int) -> Tokenizer:
  """The tokenizer `name` of a published model.

  Raises:
    ValueError: if there is no such tokenizer.
    FileNotFoundError: if there is no file `vocab`.
    ImportError: if the packages of `vitjax[text]` are not installed.
  """
  if name not in TOKENIZERS:
    raise ValueError(
      f"tokenizer={name!r} does not exist."
      f"{messages.did_you_mean(name, TOKENIZERS)} Known: "
      f"{', '.join(TOKENIZERS)}."
    )
  return TOKENIZERS[name](vocab, max_len=max_len)


def copy_vocab(facts: Mapping[str, Any], target: Path) -> dict[str, Any]:
  """Copies a vocabulary beside the weights that need it.

  Args:
    facts: arguments of `create`: "name", "vocab" and "max_len".
    target: path of the weights or of a file beside them; its suffix does not
      matter.

  Returns:
    The facts with the name of the copy, "B_16.txt" for "B_16.npz".
  """
  source = _file(facts["vocab"])
  copy = places.of(target).with_suffix(source.suffix)
  content = source.read_bytes()
  if not copy.exists() or copy.read_bytes() != content:
    copy.write_bytes(content)
  return {**facts, "vocab": copy.name}


def _processor(model: Path):
  with extras.needed("text", "models that read texts"):
    import sentencepiece as spm
  processor = spm.SentencePieceProcessor(model_file=os.fspath(_file(model)))
  eos = processor.eos_id()
  if eos < 0:
    raise ValueError(
      f"{os.fspath(model)!r} has no end-of-sentence token, from which the text "
      "towers read the embedding. Use the published vocabulary, or train one "
      "with an eos_id."
    )
  return processor, eos


def _file(path: Path) -> pathlib.Path:
  file = shipped.find(os.fspath(path))  # maybe that of a shipped config
  if not file.is_file():
    raise FileNotFoundError(
      f"the vocabulary file {os.fspath(path)!r} does not exist. Give its path "
      "as vocab."
    )
  return file
