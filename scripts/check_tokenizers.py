"""Checks tokenizers: OpenCLIP and transformers must give the same token ids.

  python -m scripts.check_tokenizers export FOLDER --clip_vocab=FILE
  python -m scripts.check_tokenizers compare FOLDER
  python -m scripts.check_tokenizers reference FOLDER

The first runs where vitjax is installed, the others where open_clip_torch,
transformers, sentencepiece and protobuf are. The first writes token ids of odd
texts: CLIP's with its whole vocabulary, bpe_simple_vocab_16e6.txt.gz of the
package open_clip_torch, and SigLIP's with small ones that it makes. The second
lists the texts whose ids differ; it ends with status 1 if one is not in
`EXPECTED`. The third writes the case of tests/golden/reference, with a small
vocabulary of CLIP's kind.
"""

import argparse
import gzip
import json
import pathlib
import sys

import numpy as np

TEXTS = (
  "a photo of a cat",
  "",
  " ",
  "  two  spaces\tand a tab\nand a line ",
  "Capitals And SHOUTING",
  "Ünïcödé, café, naïve, Ångström, İstanbul, straße",
  "decomposed: cafe\u0301",
  "emoji 😀👍🏽 and a family 👨‍👩‍👧",
  "numbers 1234567890, 3.14, ½, ②, Ⅷ",
  "it's, I'm, they'll, we've, he'd, don't, can't, they're, IT'S",
  "HTML &amp; entities &lt;b&gt; &amp;amp; &eacute; &#39;",
  "mojibake: cafÃ© â€œquotedâ€",
  "curly \u201cquotes\u201d and \u2018single\u2019 ones",
  "fullwidth ＡＢＣ and ligatures ﬁ ﬂ",
  "中文 和 日本語 と 한국어",
  "кириллица, ελληνικά, عربى, עברית, हिन्दी",
  "punctuation!?... --- (brackets) [and] {braces} #hash @at $5 50% a_b",
  "under_score and back\\slash",
  "a very long text " * 40,
  "z" * 300,
  "an emoji sequence longer than the context " + "😀" * 90,
  "\u200bzero\u200bwidth\ufeff",
  "control \x07 bell",
  "ΣΊΣΥΦΟΣ",
)


# Texts that transformers reads in another way: it repairs no text for CLIP and
# decodes no HTML entities; the library `tokenizers` does not know the sigma at
# the end of a word; and equally probable pieces are a matter of rounding.
_REPEATED, _SIGMA = "z" * 300, "ΣΊΣΥΦΟΣ"
_REPAIRED = (
  "HTML",
  "mojibake",
  "curly",
  "fullwidth",
  "\u200b",
  "control",
)
EXPECTED = {
  "hf_siglip transformers": (_REPEATED,),
  "open_clip_siglip open_clip": (_REPEATED,),
  "gemma transformers": (_SIGMA,),
  "clip transformers": (*_REPAIRED, _SIGMA),
}


def export(folder: pathlib.Path, clip_vocab: str) -> None:
  """Writes token ids of `TEXTS`, and small vocabularies for SigLIP's."""
  import sentencepiece
  import tokenizers as library

  from vitjax.data import tokenizers

  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(x.lower() for x in TEXTS * 3),
    model_prefix=str(folder / "spiece"),
    vocab_size=200,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  gemma = library.Tokenizer(
    library.models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
  )
  gemma.normalizer = library.normalizers.Replace(" ", "▁")
  gemma.pre_tokenizer = library.pre_tokenizers.Split(
    " ", "merged_with_previous"
  )
  special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
  special += [f"<0x{i:02X}>" for i in range(256)]
  trainer = library.trainers.BpeTrainer(
    vocab_size=500, special_tokens=special, show_progress=False
  )
  gemma.train_from_iterator([x.lower() for x in TEXTS], trainer)
  gemma.save(str(folder / "tokenizer.json"))
  made = {
    "hf_siglip": (folder / "spiece.model", 64),
    "open_clip_siglip": (folder / "spiece.model", 64),
    "gemma": (folder / "tokenizer.json", 64),
    "open_clip_gemma": (folder / "tokenizer.json", 64),
  }
  if clip_vocab:
    made["clip"] = (pathlib.Path(clip_vocab), 77)
  for name, (vocab, max_len) in made.items():
    ids = tokenizers.create(name, vocab, max_len=max_len)(TEXTS)
    np.save(folder / f"{name}.npy", ids)
    print(f"wrote {folder / name}.npy")


def compare(folder: pathlib.Path) -> None:
  """Prints the texts that differ."""
  import open_clip
  import transformers

  clean = open_clip.tokenizer.get_clean_fn("canonicalize")
  cleaned = [clean(text) for text in TEXTS]
  padded = {"padding": "max_length", "truncation": True, "return_tensors": "np"}
  siglip = transformers.SiglipTokenizer(str(folder / "spiece.model"))
  # As the published tokenizer_config.json and tokenizer.json of SigLIP 2.
  model = json.loads((folder / "tokenizer.json").read_text())["model"]
  gemma = transformers.Siglip2Tokenizer(
    vocab=model["vocab"],
    merges=[tuple(x) for x in model["merges"]],
    padding_side="right",
    model_max_length=63,
  )
  tables = {
    "hf_siglip transformers": siglip(
      list(TEXTS), max_length=64, **padded
    ).input_ids,
    "open_clip_siglip open_clip": siglip(
      cleaned, max_length=64, **padded
    ).input_ids,
    "gemma transformers": _with_eos(gemma, TEXTS, 64),
    "open_clip_gemma open_clip": _with_eos(gemma, cleaned, 64),
  }
  if (folder / "clip.npy").exists():
    tables["clip open_clip"] = open_clip.tokenizer.tokenize(list(TEXTS)).numpy()
    tables["clip transformers"] = _clip_of_transformers()
  failed = []
  for name, want in tables.items():
    got = np.load(folder / f"{name.split()[0]}.npy")
    rows = [i for i in range(len(TEXTS)) if not np.array_equal(got[i], want[i])]
    expected = EXPECTED.get(name, ())
    print(f"{name:26} {len(TEXTS) - len(rows)} of {len(TEXTS)} texts are equal")
    for i in rows:
      known = "" if TEXTS[i].startswith(expected) else "  FAILED"
      print(f"    {TEXTS[i][:50]!r}{known}")
      failed += [name] if known else []
  if failed:
    sys.exit(f"{len(failed)} texts differ: {', '.join(failed)}")


def _with_eos(tokenizer, texts, max_len: int) -> np.ndarray:
  rows = []
  for text in texts:
    ids = tokenizer(text, add_special_tokens=False).input_ids[: max_len - 1]
    ids = [*ids, tokenizer.eos_token_id]
    rows.append(ids + [tokenizer.pad_token_id] * (max_len - len(ids)))
  return np.array(rows)


def _clip_of_transformers() -> np.ndarray:
  """Ids of transformers' tokenizer with OpenCLIP's vocabulary, padded by 0."""
  import open_clip
  import transformers

  theirs = open_clip.SimpleTokenizer()
  vocab = dict(theirs.encoder)
  for x in ("start", "end"):
    vocab[f"<|{x}oftext|>"] = vocab.pop(f"<{x}_of_text>")
  merges = sorted(theirs.bpe_ranks, key=theirs.bpe_ranks.get)
  tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=merges)
  rows = [
    tokenizer(text, truncation=True, max_length=77).input_ids for text in TEXTS
  ]
  return np.array([row + [0] * (77 - len(row)) for row in rows])


def reference(folder: pathlib.Path) -> None:
  """Writes a small vocabulary and OpenCLIP's ids of `TEXTS` with it."""
  import open_clip
  import tokenizers

  whole = open_clip.SimpleTokenizer()
  small = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix="</w>"))
  small.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Whitespace(),
      tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
      ),
    ]
  )
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=600, end_of_word_suffix="</w>", show_progress=False
  )
  texts = [whole.clean_fn(text) for text in TEXTS]
  small.train_from_iterator(texts, trainer)
  merges = json.loads(small.to_str())["model"]["merges"]
  lines = ["#version: small", *(" ".join(pair) for pair in merges)]
  file = folder / "small.gz"
  file.write_bytes(gzip.compress("\n".join(lines).encode()))
  ids = open_clip.SimpleTokenizer(bpe_path=str(file))(list(TEXTS), 77)
  file.unlink()
  case = {
    "source": f"open_clip {open_clip.__version__}",
    "merges": lines[1:],
    "ids": ids.tolist(),
  }
  out = folder / "clip_tokens.json"
  out.write_text(json.dumps(case) + "\n")
  print(f"wrote {out}: {len(merges)} merges, {len(ids)} texts")


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("command", choices=("export", "compare", "reference"))
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("--clip_vocab", default="")
  args = parser.parse_args()
  if args.command == "export":
    export(args.folder, args.clip_vocab)
  else:
    {"compare": compare, "reference": reference}[args.command](args.folder)


if __name__ == "__main__":
  main()
