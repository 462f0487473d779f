"""Tokenizers of the published text towers: texts in, token ids out.

Weights need the tokenizer that they were trained with, so length, padding and
lower-casing cannot be chosen. Needs the packages of `vitjax[text]`, but not
TensorFlow. Vocabularies are files beside the weights.

Not here: reading files from the web (`vitjax.weights.download.fetch`).
"""

import dataclasses
import gzip
import html
import json
import os
import pathlib
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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


def clip(vocab: Path, *, max_len: int = 77) -> Tokenizer:
  """Byte-pair encoding of CLIP: start, pieces in lower case, end, then 0.

  As OpenAI's, which was used in training: a text is repaired by ftfy, its HTML
  entities are decoded, and white space is collapsed. transformers does neither
  of the first two. A text that is too long loses its last pieces and keeps the
  end. A special token within a text is plain text.

  Args:
    vocab: `bpe_simple_vocab_16e6.txt.gz` of OpenAI and OpenCLIP; `merges.txt`
      or `tokenizer.json` of transformers.
    max_len: number of ids, start and end included.

  Raises:
    ValueError: if the file is none of these.
  """
  with extras.needed("text", "models that read texts"):
    import tokenizers
  _repaired("")  # a missing package is named here, not at the first text
  ids, merges = _clip_vocab(vocab)
  bpe = tokenizers.Tokenizer(
    tokenizers.models.BPE(ids, merges, end_of_word_suffix="</w>")
  )
  words = tokenizers.Regex(
    r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
  )
  bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Split(words, "removed", invert=True),
      tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
      ),
    ]
  )
  start, end = (ids[f"<|{x}oftext|>"] for x in ("start", "end"))

  def clean(text):
    return " ".join(_repaired(text).split()).lower()

  def encode(texts):
    texts = [clean(text) for text in texts]
    for encoding in bpe.encode_batch(texts, add_special_tokens=False):
      yield [start, *encoding.ids, end]

  def fit(ids):
    ids = [*ids[: max_len - 1], end] if len(ids) > max_len else ids
    return ids + [0] * (max_len - len(ids))

  return Tokenizer(encode, fit, len(ids), max_len)


# OpenAI's file has more merges than its vocabulary.
_CLIP_MERGES = 49_152 - 256 - 2


def _clip_vocab(
  vocab: Path,
) -> tuple[dict[str, int], list[tuple[str, str]]]:
  """The ids of all pieces, and the pairs that are merged, in their order."""
  file = _file(vocab)
  content = file.read_bytes()
  if file.suffix == ".gz":
    content = gzip.decompress(content)
  text = content.decode("utf-8")
  if file.suffix == ".json":
    model = json.loads(text).get("model", {})
    pairs, ids = model.get("merges", []), model.get("vocab", {})
  else:
    header, *lines = text.split("\n")
    pairs, ids = [line for line in lines if line][:_CLIP_MERGES], {}
    if "#version" not in header:
      pairs = []
  pairs = [x.split() if isinstance(x, str) else x for x in pairs]
  if not pairs or any(len(pair) != 2 for pair in pairs):
    raise ValueError(
      f"{os.fspath(vocab)!r} is not a vocabulary of CLIP: use "
      "bpe_simple_vocab_16e6.txt.gz, which the package open_clip_torch has "
      "too, or merges.txt or tokenizer.json beside the weights."
    )
  merges = [(first, second) for first, second in pairs]
  if not ids:
    alphabet = _bytes_in_order()
    pieces = [*alphabet, *(f"{x}</w>" for x in alphabet), *map("".join, merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    ids = {piece: i for i, piece in enumerate(pieces)}
  return ids, merges


def _bytes_in_order() -> list[str]:
  """A character for each byte: first the printable ones, then 256 and on."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = 256 - len(printable)
  return [chr(i) for i in (*printable, *range(256, 256 + others))]


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
  return _padded(_read(model), str.lower, pad=1, max_len=max_len)


def hf_siglip(vocab: Path, *, max_len: int = 64) -> Tokenizer:
  """SigLIP's in transformers and OpenCLIP: `siglip` without punctuation.

  ASCII punctuation is removed, and white space collapsed.

  Args:
    vocab: `spiece.model` or `tokenizer.json` beside the weights.
    max_len: number of ids, `</s>` included.
  """
  return _padded(_read(vocab), _without_punctuation, pad=1, max_len=max_len)


def open_clip_siglip(vocab: Path, *, max_len: int = 64) -> Tokenizer:
  """SigLIP's in OpenCLIP: `hf_siglip` of repaired texts.

  ftfy repairs the text, HTML entities are decoded, and `_` is a space.

  Args:
    vocab: `tokenizer.json` beside the weights, or SentencePiece's `.model`.
    max_len: number of ids, `</s>` included.
  """
  _repaired("")  # a missing package is named here, not at the first text
  return _padded(_read(vocab), _canonical, pad=1, max_len=max_len)


def gemma(vocab: Path, *, max_len: int = 64) -> Tokenizer:
  """SentencePiece of SigLIP 2: as `siglip`, but padded with `<pad>`.

  Args:
    vocab: Gemma's SentencePiece `.model` file, or `tokenizer.json` of SigLIP 2
      in transformers.
    max_len: number of ids, `<eos>` included.

  Raises:
    ValueError: if the file has no token for padding.
  """
  return _gemma(vocab, str.lower, max_len)


def open_clip_gemma(vocab: Path, *, max_len: int = 64) -> Tokenizer:
  """SigLIP 2's in OpenCLIP: `gemma` of texts as `open_clip_siglip` has them.

  Args and Raises as `gemma`.
  """
  return _gemma(vocab, _canonical, max_len)


def _gemma(vocab: Path, clean: Callable[[str], str], max_len: int) -> Tokenizer:
  pieces = _read(vocab)
  if pieces.pad is None:
    raise ValueError(
      f"{os.fspath(vocab)!r} has no token for padding, but Gemma's has: use "
      "gs://big_vision/gemma_tokenizer.model, or the tokenizer 'siglip' for "
      "the vocabularies of the first SigLIP."
    )
  return _padded(pieces, clean, pad=pieces.pad, max_len=max_len)


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _without_punctuation(text: str) -> str:
  return " ".join(text.lower().translate(_PUNCTUATION).split())


def _canonical(text: str) -> str:
  return _without_punctuation(_repaired(text).replace("_", " "))


def _repaired(text: str) -> str:
  with extras.needed("text", "models that read texts"):
    import ftfy
  return html.unescape(html.unescape(ftfy.fix_text(text)))


class _Pieces(NamedTuple):
  """What a file of SentencePiece or of the library `tokenizers` says."""

  encode: Callable[[list[str]], Iterable[Sequence[int]]]
  size: int
  eos: int
  pad: int | None


def _read(vocab: Path) -> _Pieces:
  if _file(vocab).suffix != ".json":
    processor, eos = _processor(vocab)
    pad = processor.pad_id()
    return _Pieces(
      processor.encode, len(processor), eos, None if pad < 0 else pad
    )
  with extras.needed("text", "models that read texts"):
    import tokenizers
  tokenizer = tokenizers.Tokenizer.from_file(os.fspath(_file(vocab)))
  tokenizer.no_padding()
  tokenizer.no_truncation()
  tokenizer.encode_special_tokens = True  # within a text they are plain text
  ids = map(tokenizer.token_to_id, ("</s>", "<eos>"))
  eos = next((i for i in ids if i is not None), None)
  if eos is None:
    raise ValueError(f"{os.fspath(vocab)!r} has no {_NO_EOS}")

  def encode(texts):
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
      yield encoding.ids

  size = tokenizer.get_vocab_size()
  return _Pieces(encode, size, eos, tokenizer.token_to_id("<pad>"))


def _padded(
  pieces: _Pieces, clean: Callable[[str], str], *, pad: int, max_len: int
) -> Tokenizer:
  def encode(texts):
    return pieces.encode([clean(x) for x in texts])

  def fit(ids):
    ids = ids[: max_len - 1] + [pieces.eos]
    return ids + [pad] * (max_len - len(ids))

  return Tokenizer(encode, fit, pieces.size, max_len)


TOKENIZERS = {
  "bert": bert,
  "clip": clip,
  "gemma": gemma,
  "hf_siglip": hf_siglip,
  "open_clip_gemma": open_clip_gemma,
  "open_clip_siglip": open_clip_siglip,
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
  # The description of the weights is the .json beside them.
  suffix = ".tokenizer.json" if source.suffix == ".json" else source.suffix
  copy = places.of(target).with_suffix(suffix)
  content = source.read_bytes()
  if not copy.exists() or copy.read_bytes() != content:
    copy.write_bytes(content)
  return {**facts, "vocab": copy.name}


_NO_EOS = (
  "end-of-sentence token, from which the text towers read the embedding. Use "
  "the published vocabulary, or train one with an eos_id."
)


def _processor(model: Path):
  with extras.needed("text", "models that read texts"):
    import sentencepiece as spm
  processor = spm.SentencePieceProcessor(model_file=os.fspath(_file(model)))
  eos = processor.eos_id()
  if eos < 0:
    raise ValueError(f"{os.fspath(model)!r} has no {_NO_EOS}")
  return processor, eos


def _file(path: Path) -> pathlib.Path:
  file = shipped.find(os.fspath(path))  # maybe that of a shipped config
  if not file.is_file():
    raise FileNotFoundError(
      f"the vocabulary file {os.fspath(path)!r} does not exist. Give its path "
      "as vocab."
    )
  return file
