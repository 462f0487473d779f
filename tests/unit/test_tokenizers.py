"""Token ids, exactly, on vocabularies small enough to read."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from vitjax.data import tokenizers

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


@pytest.mark.parametrize("package", ["tokenizers", "sentencepiece"])
def test_a_missing_package_is_named(monkeypatch, package, vocab, model):
  monkeypatch.setitem(sys.modules, package, None)
  name, file = {
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
