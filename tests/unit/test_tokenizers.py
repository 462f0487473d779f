"""Token ids, exactly, on vocabularies small enough to read."""

import gzip
import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from scripts.check_tokenizers import TEXTS
from vitjax.data import tokenizers

REFERENCE = pathlib.Path(__file__).parents[1] / "golden" / "reference"

spm = pytest.importorskip("sentencepiece")
pytest.importorskip("tokenizers")

PIECES = """[PAD]
[unused]
[UNK]
[CLS]
[SEP]
a
photo
of
cat
##s
##alog
,
cafe
猫
"""


@pytest.fixture
def vocab(tmp_path):
  path = tmp_path / "vocab.txt"
  path.write_text(PIECES, encoding="utf-8")
  return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("spm")
  sentences = ["a photo of a cat", "two photos of dogs", "the A and the B"]
  spm.SentencePieceTrainer.train(
    sentence_iterator=iter(sentences * 20),
    model_prefix=str(folder / "small"),
    vocab_size=40,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  return folder / "small.model"


def test_bert_starts_with_cls_pads_with_0_and_has_no_sep(vocab):
  ids = tokenizers.bert(vocab, max_len=8)(["A photo of CATS", ""])
  assert ids.dtype == np.int32
  assert ids.tolist() == [[3, 5, 6, 7, 8, 9, 0, 0], [3, 0, 0, 0, 0, 0, 0, 0]]


def test_bert_truncates_the_end_and_keeps_cls(vocab):
  ids = tokenizers.bert(vocab, max_len=4)("a photo of a cat")
  assert ids.tolist() == [[3, 5, 6, 7]]


@pytest.mark.parametrize(
  "text, ids",
  [
    ("cat,cat", [8, 11, 8]),  # punctuation splits words
    ("Café", [12]),  # accents go
    ("a猫a", [5, 13, 5]),  # a Chinese character is a word
    ("catalogs", [8, 10, 9]),  # longest piece first
    ("catx", [2]),  # a word is unknown as a whole
    ("[SEP]", [2, 2, 2]),  # markup in a text is text
    ("a\tcat\n", [5, 8]),
  ],
)
def test_bert_splits_words(vocab, text, ids):
  got = tokenizers.bert(vocab, max_len=8)(text)
  assert got.tolist() == [[3, *ids] + [0] * (7 - len(ids))]


def test_bert_rejects_a_file_that_is_not_a_vocabulary(tmp_path):
  path = tmp_path / "words.txt"
  path.write_text("cat\n")
  with pytest.raises(ValueError, match=r"has no line \[CLS\]"):
    tokenizers.bert(path)


def test_lit_pads_with_eos_and_keeps_upper_case(model):
  processor = spm.SentencePieceProcessor(model_file=str(model))
  pieces = processor.encode("the A")
  assert len(pieces) < 8
  ids = tokenizers.sentencepiece(model, max_len=8)(["the A"])
  assert ids.tolist() == [pieces + [1] * (8 - len(pieces))]
  lower = tokenizers.sentencepiece(model, max_len=8)("the a")
  assert ids.tolist() != lower.tolist()


def test_lit_ends_with_eos_when_the_text_is_too_long(model):
  processor = spm.SentencePieceProcessor(model_file=str(model))
  pieces = processor.encode("a photo of a cat")
  for max_len in (len(pieces) + 1, len(pieces), len(pieces) - 1):
    ids = tokenizers.sentencepiece(model, max_len=max_len)("a photo of a cat")
    assert ids.tolist() == [pieces[: max_len - 1] + [1]]


def test_siglip_lowers_and_its_eos_is_sticky(tmp_path, model):
  processor = spm.SentencePieceProcessor(model_file=str(model))
  pieces = processor.encode("the a and the b")
  tokenize = tokenizers.siglip(model, max_len=len(pieces) + 4)
  assert tokenize("The A and THE B").tolist() == [pieces + [1, 1, 1, 1]]
  for max_len in (len(pieces) + 1, len(pieces), 3):
    ids = tokenizers.siglip(model, max_len=max_len)("The A and THE B")
    assert ids.tolist() == [pieces[: max_len - 1] + [1]]


def test_siglip_pads_with_1_whatever_the_id_of_eos(tmp_path):
  spm.SentencePieceTrainer.train(
    sentence_iterator=iter(["a photo of a cat"] * 20),
    model_prefix=str(tmp_path / "other"),
    vocab_size=30,
    pad_id=1,
    eos_id=3,
    unk_id=0,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  model = tmp_path / "other.model"
  ids = tokenizers.siglip(model, max_len=64)("cat")[0].tolist()
  end = ids.index(3)
  assert set(ids[end + 1 :]) == {1} and 1 not in ids[:end]
  ids = tokenizers.sentencepiece(model, max_len=64)("cat")[0].tolist()
  assert set(ids[end:]) == {3}


def test_gemma_pads_with_its_own_token(tmp_path):
  """SigLIP 2 was trained with `<pad>`, 0; 1, the first SigLIP's, is `<eos>`."""
  spm.SentencePieceTrainer.train(
    sentence_iterator=iter(["a photo of a cat"] * 20),
    model_prefix=str(tmp_path / "gemma"),
    vocab_size=30,
    pad_id=0,
    eos_id=1,
    bos_id=2,
    unk_id=3,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  model = tmp_path / "gemma.model"
  ids = tokenizers.gemma(model, max_len=64)("A CAT")[0].tolist()
  end = ids.index(1)
  assert set(ids[end + 1 :]) == {0} and 2 not in ids
  assert (
    ids[:end] == tokenizers.siglip(model, max_len=64)("a cat")[0][:end].tolist()
  )
  short = tokenizers.gemma(model, max_len=3)("a photo of a cat")[0]
  assert short[-1] == 1 and 0 not in short


def test_gemma_needs_a_token_for_padding(tmp_path):
  spm.SentencePieceTrainer.train(
    sentence_iterator=iter(["a photo of a cat"] * 20),
    model_prefix=str(tmp_path / "no_pad"),
    vocab_size=30,
    pad_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  with pytest.raises(ValueError, match="no token for padding"):
    tokenizers.gemma(tmp_path / "no_pad.model")


def test_hf_siglip_drops_punctuation_too(model):
  plain = tokenizers.siglip(model, max_len=16)
  clean = tokenizers.hf_siglip(model, max_len=16)
  text = " The  A, and_the: B! "
  assert clean(text).tolist() == plain("the a andthe b").tolist()
  assert clean(text).tolist() != plain(text).tolist()


def test_open_clip_repairs_texts_before_it_drops_punctuation(model):
  plain = tokenizers.siglip(model, max_len=16)
  clean = tokenizers.open_clip_siglip(model, max_len=16)
  text = " The  A&lt;B, and_the: ＢＢ "
  assert clean(text).tolist() == plain("the ab and the bb").tolist()
  other = tokenizers.hf_siglip(model, max_len=16)
  assert clean(text).tolist() != other(text).tolist()


@pytest.fixture(scope="module")
def gemma_json(tmp_path_factory):
  """A file as SigLIP 2's in transformers, which pads on its own."""
  library = pytest.importorskip("tokenizers")
  gemma = library.Tokenizer(
    library.models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
  )
  gemma.normalizer = library.normalizers.Replace(" ", "▁")
  gemma.pre_tokenizer = library.pre_tokenizers.Split(
    " ", "merged_with_previous"
  )
  special = ["<pad>", "<eos>", "<bos>", "<unk>"]
  special += [f"<0x{i:02X}>" for i in range(256)]
  trainer = library.trainers.BpeTrainer(
    vocab_size=300, special_tokens=special, show_progress=False
  )
  gemma.train_from_iterator(["a photo of a cat", "two photos"], trainer)
  gemma.enable_padding(length=5)
  gemma.enable_truncation(3)
  gemma.post_processor = library.processors.TemplateProcessing(
    "<bos> $A", special_tokens=[("<bos>", 2)]
  )
  file = tmp_path_factory.mktemp("gemma") / "tokenizer.json"
  gemma.save(str(file))
  return file


def test_gemma_reads_tokenizer_json(gemma_json):
  tokenize = tokenizers.gemma(gemma_json, max_len=12)
  library = importlib.import_module("tokenizers")
  plain = library.Tokenizer.from_file(str(gemma_json))
  vocab = plain.get_vocab()
  (ids,) = tokenize("A CAT").tolist()
  # Pieces in lower case, then the end, then padding; no start.
  pieces = [next(k for k, i in vocab.items() if i == x) for x in ids]
  end = pieces.index("<eos>")
  assert "".join(pieces[:end]) == "a▁cat"
  assert pieces[end:] == ["<eos>"] + ["<pad>"] * (11 - end)
  assert tokenize.vocab_size == len(vocab)
  # Markup in a text is text.
  assert 1 not in tokenize("<eos>").tolist()[0][:4]
  clean = tokenizers.open_clip_gemma(gemma_json, max_len=12)
  assert clean(" A_(CAT)").tolist() == tokenize("a cat").tolist()


@pytest.fixture(scope="module")
def clip_case():
  pytest.importorskip("ftfy")
  return json.loads((REFERENCE / "clip_tokens.json").read_text())


def clip_files(case, folder):
  """The vocabulary in each of the published forms."""
  lines = ["#version: 0.2", *case["merges"], ""]
  text = "\n".join(lines).encode()
  (folder / "merges.txt").write_bytes(text)
  (folder / "bpe.txt.gz").write_bytes(gzip.compress(text))
  ids, merges = tokenizers._clip_vocab(folder / "merges.txt")
  for name, content in (
    ("new.json", [list(pair) for pair in merges]),
    ("old.json", case["merges"]),
  ):
    model = {"type": "BPE", "vocab": ids, "merges": content}
    (folder / name).write_text(json.dumps({"model": model}))
  return [folder / x for x in ("merges.txt", "bpe.txt.gz", "new.json")] + [
    folder / "old.json"
  ]


def test_clip_is_that_of_open_clip(clip_case, tmp_path):
  for file in clip_files(clip_case, tmp_path):
    tokenize = tokenizers.clip(file)
    got = tokenize(TEXTS)
    for text, ids, want in zip(TEXTS, got, clip_case["ids"], strict=True):
      assert ids.tolist() == want, (file.name, text)
    assert tokenize.vocab_size == 512 + len(clip_case["merges"]) + 2


def test_clip_starts_ends_and_pads_with_0(clip_case, tmp_path):
  file = clip_files(clip_case, tmp_path)[0]
  tokenize = tokenizers.clip(file, max_len=6)
  start, end = tokenize.vocab_size - 2, tokenize.vocab_size - 1
  assert tokenize("").tolist() == [[start, end, 0, 0, 0, 0]]
  (long,) = tokenize("1 2 3 4 5 6 7").tolist()
  assert long[0] == start and long[-1] == end and len(long) == 6
  # Markup in a text is text.
  assert end not in tokenizers.clip(file)("<|endoftext|>")[0, 1:5]


def test_clip_rejects_a_file_that_is_not_its_vocabulary(tmp_path, vocab):
  pytest.importorskip("ftfy")
  other = tmp_path / "tokenizer.json"
  other.write_text('{"model": {"vocab": [["a", 0.1]]}}')
  for file in (vocab, other):
    with pytest.raises(ValueError, match="is not a vocabulary of CLIP"):
      tokenizers.clip(file)


def test_a_copied_tokenizer_does_not_replace_the_description(
  gemma_json, tmp_path
):
  facts = {"name": "gemma", "vocab": gemma_json, "max_len": 8}
  copied = tokenizers.copy_vocab(facts, tmp_path / "towers.safetensors")
  assert copied == {**facts, "vocab": "towers.tokenizer.json"}
  assert (tmp_path / copied["vocab"]).read_bytes() == gemma_json.read_bytes()


def test_a_model_without_eos_is_an_error(tmp_path):
  spm.SentencePieceTrainer.train(
    sentence_iterator=iter(["a photo of a cat"] * 20),
    model_prefix=str(tmp_path / "no_eos"),
    vocab_size=30,
    eos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  with pytest.raises(ValueError, match="no end-of-sentence token"):
    tokenizers.siglip(tmp_path / "no_eos.model")


def test_no_texts_give_no_rows(vocab):
  assert tokenizers.bert(vocab, max_len=8)([]).shape == (0, 8)


def test_create_reports_what_there_is(vocab, tmp_path):
  assert tokenizers.create("bert", vocab, max_len=5)("a").shape == (1, 5)
  with pytest.raises(ValueError, match=r"'wordpiece' does not exist"):
    tokenizers.create("wordpiece", vocab, max_len=5)
  with pytest.raises(
    FileNotFoundError, match=r"vocabulary file '.*no\.txt' does not exist"
  ):
    tokenizers.create("bert", tmp_path / "no.txt", max_len=5)


@pytest.mark.parametrize("package", ["ftfy", "tokenizers", "sentencepiece"])
def test_a_missing_package_is_named(monkeypatch, package, vocab, model):
  monkeypatch.setitem(sys.modules, package, None)
  name, file = {
    "ftfy": ("clip", vocab),
    "tokenizers": ("bert", vocab),
    "sentencepiece": ("siglip", model),
  }[package]
  with pytest.raises(ImportError, match=r'pip install "vitjax\[text\]"'):
    tokenizers.create(name, file, max_len=8)


def test_importing_it_imports_no_tokenizer():
  module = importlib.import_module("vitjax.data.tokenizers").__name__
  code = (
    f"import sys, {module}\n"
    "print({'tokenizers', 'sentencepiece', 'tensorflow'} & set(sys.modules))"
  )
  out = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert out.stdout == "set()\n"
