"""LiT and SigLIP. ":img" behind the path is the image tower alone."""

from collections.abc import Iterator

from vitjax.weights.zoo.entry import HUB, Entry, File

_LIT_PAPER = "https://arxiv.org/abs/2111.07991"
_SIGLIP_PAPER = "https://arxiv.org/abs/2303.15343"
_SIGLIP2_PAPER = "https://arxiv.org/abs/2502.14786"
_BIG_VISION = (
  "https://github.com/google-research/big_vision/blob/main/big_vision/configs/"
  "proj/image_text"
)

# The vocabulary of every lower-cased BERT. Its checksum is published with
# many models that have a copy of it.
_BERT = File(
  f"{HUB}/google-bert/bert-base-uncased/resolve/main/vocab.txt",
  231_508,
  "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
)

# Name -> tokenizer, zero-shot top-1, the nearest model with an open home.
_LIT = {
  "LiT-B16B": ("bert", 72.1, "SigLIP B/16 224"),
  "LiT-B16B_2": ("bert", 73.9, "SigLIP B/16 224"),
  "LiT-L16L": ("bert", 75.7, "SigLIP L/16 256"),
  "LiT-L16S": ("sentencepiece", None, "SigLIP L/16 256"),
  "LiT-L16Ti": ("sentencepiece", None, "SigLIP L/16 256"),
}

# (Model, pixels) -> file and vocabulary.
_ENGLISH, _ALL = "cc_en.32000", "mc4.250000.100extra"
_SIGLIP = {
  ("B/16", 224): ("webli_en_b16_224_63724782", _ENGLISH),
  ("B/16", 256): ("webli_en_b16_256_60500360", _ENGLISH),
  ("B/16", 384): ("webli_en_b16_384_68578854", _ENGLISH),
  ("B/16", 512): ("webli_en_b16_512_68580893", _ENGLISH),
  ("L/16", 256): ("webli_en_l16_256_60552751", _ENGLISH),
  ("L/16", 384): ("webli_en_l16_384_63634585", _ENGLISH),
  ("So400m/14", 224): ("webli_en_so400m_224_57633886", _ENGLISH),
  ("So400m/14", 384): ("webli_en_so400m_384_58765454", _ENGLISH),
  ("B/16-i18n", 256): ("webli_i18n_b16_256_66117334", _ALL),
  ("So400m/16-i18n", 256): ("webli_i18n_so400m_16_256_78061115", _ALL),
}

# Model and its part of the file's name -> pixels and zero-shot top-1.
_SIGLIP2 = {
  ("B/32", "b32"): {256: 74.0},
  ("B/16", "b16"): {224: 78.2, 256: 79.1, 384: 80.6, 512: 81.2},
  ("L/16", "l16"): {256: 82.5, 384: 83.1, 512: 83.5},
  ("So400m/14", "so400m14"): {224: 83.2, 384: 84.1},
  ("So400m/16", "so400m16"): {256: 83.4, 384: 84.1, 512: 84.3},
  ("g-opt/16", "g-opt16"): {256: 84.5, 384: 85.0},
}
_GEMMA = File("gs://big_vision/gemma_tokenizer.model")


def lit() -> Iterator[Entry]:
  folder = "gs://vit_models/lit"
  for name, (tokenizer, top1, instead) in _LIT.items():
    if tokenizer == "bert":
      vocab = (_BERT, File(f"{folder}/{name}.txt"))
    else:
      vocab = (File(f"{folder}/{name}.model"),)
    yield Entry(
      name,
      (File(f"{folder}/{name}.npz"),),
      name,
      {},
      vocab=vocab,
      family="two_tower",
      loss="contrastive",
      tokenizer=tokenizer,
      data=("ImageNet-21k", "CC12M and YFCC100M"),
      paper=_LIT_PAPER,
      top1=top1,
      source=f"{_BIG_VISION}/README_lit.md" if top1 else None,
      instead=instead,
    )


def siglip() -> Iterator[Entry]:
  facts = {"family": "two_tower", "loss": "siglip", "data": ("WebLI",)}
  for (variant, pixels), (file, corpus) in _SIGLIP.items():
    name = f"SigLIP {variant} {pixels}"
    vocab = f"gs://t5-data/vocabs/{corpus}/sentencepiece.model"
    yield Entry(
      name,
      (File(f"gs://big_vision/siglip/{file}.npz"),),
      name,
      {},
      pixels,
      vocab=(File(vocab),),
      tokenizer="siglip",
      paper=_SIGLIP_PAPER,
      **facts,
    )
  for (variant, stem), sizes in _SIGLIP2.items():
    for pixels, top1 in sizes.items():
      name = f"SigLIP2 {variant} {pixels}"
      yield Entry(
        name,
        (File(f"gs://big_vision/siglip2/siglip2_{stem}_{pixels}.npz"),),
        name,
        {},
        pixels,
        vocab=(_GEMMA,),
        tokenizer="gemma",
        paper=_SIGLIP2_PAPER,
        licence=None,  # software is Apache-2.0, other materials CC-BY-4.0
        top1=top1,
        source=f"{_BIG_VISION}/README_siglip2.md",
        **facts,
      )
