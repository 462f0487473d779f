"""CLIP, LiT and SigLIP.

":img" behind the path of a file is the image tower alone.
"""

from collections.abc import Iterator
from typing import Any

from vitjax.weights.zoo.entry import (
  HUB,
  PYTORCH,
  Entry,
  File,
  shorter_side,
)

_LIT_PAPER = "https://arxiv.org/abs/2111.07991"
_SIGLIP_PAPER = "https://arxiv.org/abs/2303.15343"
_CLIP_PAPER = "https://arxiv.org/abs/2103.00020"
_LAION_PAPER = "https://arxiv.org/abs/2212.07143"
_DATACOMP_PAPER = "https://arxiv.org/abs/2304.14108"
_OPEN_CLIP_RESULTS = (
  "https://github.com/mlfoundations/open_clip/blob/main/docs/"
  "openclip_results.csv"
)
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

# CLIP's vocabulary, of OpenAI; the package is open_clip_torch.
_BPE = "bpe_simple_vocab_16e6.txt.gz"
_BPE_SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
CLIP_VOCAB = tuple(
  File(f"{folder}/{_BPE}", 1_356_917, _BPE_SHA256)
  for folder in (
    "https://github.com/openai/CLIP/raw/main/clip",
    "package:open_clip",
  )
)

# Repository of OpenAI -> timm's copy of it, model, pixels, zero-shot top-1.
_OPENAI = {
  "clip-vit-base-patch32": (
    "vit_base_patch32_clip_224",
    "ViT-B-32-quickgelu",
    224,
    63.32,
  ),
  "clip-vit-base-patch16": (
    "vit_base_patch16_clip_224",
    "ViT-B-16-quickgelu",
    224,
    68.34,
  ),
  "clip-vit-large-patch14": (
    "vit_large_patch14_clip_224",
    "ViT-L-14-quickgelu",
    224,
    75.54,
  ),
  "clip-vit-large-patch14-336": (
    "vit_large_patch14_clip_336",
    "ViT-L-14-336-quickgelu",
    336,
    76.56,
  ),
}

# Repository of LAION -> model, data, paper, zero-shot top-1.
_LAION = {
  "CLIP-ViT-B-32-laion2B-s34B-b79K": (
    "ViT-B-32",
    "LAION-2B",
    _LAION_PAPER,
    66.56,
  ),
  "CLIP-ViT-B-16-laion2B-s34B-b88K": (
    "ViT-B-16",
    "LAION-2B",
    _LAION_PAPER,
    70.23,
  ),
  "CLIP-ViT-L-14-laion2B-s32B-b82K": (
    "ViT-L-14",
    "LAION-2B",
    _LAION_PAPER,
    75.25,
  ),
  "CLIP-ViT-B-32-DataComp.XL-s13B-b90K": (
    "ViT-B-32",
    "DataComp-1B",
    _DATACOMP_PAPER,
    69.17,
  ),
  "CLIP-ViT-B-16-DataComp.XL-s13B-b90K": (
    "ViT-B-16",
    "DataComp-1B",
    _DATACOMP_PAPER,
    73.49,
  ),
  "CLIP-ViT-L-14-DataComp.XL-s13B-b90K": (
    "ViT-L-14",
    "DataComp-1B",
    _DATACOMP_PAPER,
    79.21,
  ),
}

# Repository of Google -> OpenCLIP's copy of it, model, zero-shot top-1 as
# OpenCLIP measured it.
_HF_SIGLIP = {
  "siglip-base-patch16-224": ("ViT-B-16-SigLIP", "B/16 224", 76.04),
  "siglip-base-patch16-256": ("ViT-B-16-SigLIP-256", "B/16 256", 76.53),
  "siglip-base-patch16-384": ("ViT-B-16-SigLIP-384", "B/16 384", 78.49),
  "siglip-base-patch16-512": ("ViT-B-16-SigLIP-512", "B/16 512", 79.14),
  "siglip-large-patch16-256": ("ViT-L-16-SigLIP-256", "L/16 256", 80.45),
  "siglip-large-patch16-384": ("ViT-L-16-SigLIP-384", "L/16 384", 82.07),
  "siglip-so400m-patch14-224": ("ViT-SO400M-14-SigLIP", "So400m/14 224", 82.03),
  "siglip-so400m-patch14-384": (
    "ViT-SO400M-14-SigLIP-384",
    "So400m/14 384",
    83.08,
  ),
}
_HF_SIGLIP2 = {
  "base-patch32": ("B/32", "ViT-B-32-SigLIP2"),
  "base-patch16": ("B/16", "ViT-B-16-SigLIP2"),
  "large-patch16": ("L/16", "ViT-L-16-SigLIP2"),
  "so400m-patch14": ("So400m/14", "ViT-SO400M-14-SigLIP2"),
  "so400m-patch16": ("So400m/16", "ViT-SO400M-16-SigLIP2"),
  "giant-opt-patch16": ("g-opt/16", "ViT-gopt-16-SigLIP2"),
}

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


def _hub(repository: str, file: str = "model.safetensors") -> File:
  return File(f"{HUB}/{repository}/resolve/main/{file}")


def _of_open_clip(repository: str) -> File:
  return _hub(repository, "open_clip_model.safetensors")


def clip() -> Iterator[Entry]:
  common: dict[str, Any] = {
    "family": "two_tower",
    "loss": "contrastive",
    "tokenizer": "clip",
    "vocab": CLIP_VOCAB,
    "source": _OPEN_CLIP_RESULTS,
    **PYTORCH,
  }
  for name, (copy, model, pixels, top1) in _OPENAI.items():
    yield Entry(
      f"openai/{name}",
      (
        _of_open_clip(f"timm/{copy}.openai"),
        _hub(f"openai/{name}", "pytorch_model.bin"),
      ),
      model,
      {},
      normalisation="clip",
      data=("WebImageText",),
      paper=_CLIP_PAPER,
      licence=None,  # of the code MIT, of timm's copy Apache-2.0
      top1=top1,
      **shorter_side(pixels, 1.0),
      **common,
    )
  for name, (model, data, paper, top1) in _LAION.items():
    inception = name == "CLIP-ViT-L-14-laion2B-s32B-b82K"
    yield Entry(
      f"laion/{name}",
      (_of_open_clip(f"laion/{name}"),),
      model,
      {},
      normalisation="inception" if inception else "clip",
      data=(data,),
      paper=paper,
      licence="MIT",
      top1=top1,
      **shorter_side(224, 1.0),
      **common,
    )


def hf_siglip() -> Iterator[Entry]:
  """transformers' files of SigLIP, and OpenCLIP's of the same weights."""
  common: dict[str, Any] = {
    "family": "two_tower",
    "loss": "siglip",
    "data": ("WebLI",),
    **PYTORCH,
  }
  for name, (copy, model, top1) in _HF_SIGLIP.items():
    yield Entry(
      f"google/{name}",
      (_hub(f"google/{name}"), _of_open_clip(f"timm/{copy}")),
      f"SigLIP {model}",
      {},
      int(name[-3:]),
      vocab=(_hub(f"google/{name}", "spiece.model"),),
      tokenizer="hf_siglip",
      paper=_SIGLIP_PAPER,
      top1=top1,
      source=_OPEN_CLIP_RESULTS,
      **common,
    )
  sizes = {variant: tops for (variant, _), tops in _SIGLIP2.items()}
  for name, (variant, copy) in _HF_SIGLIP2.items():
    for pixels, top1 in sizes[variant].items():
      repository = f"google/siglip2-{name}-{pixels}"
      # OpenCLIP leaves out 224, and has 378 for what Google calls 384.
      known = {224: "", 384: "-378" if "14" in variant else "-384"}
      size = known.get(pixels, f"-{pixels}")
      yield Entry(
        repository,
        (_hub(repository), _of_open_clip(f"timm/{copy}{size}")),
        f"SigLIP2 {variant} {pixels}",
        {},
        pixels,
        vocab=(_hub(repository, "tokenizer.json"), _GEMMA),
        tokenizer="gemma",
        paper=_SIGLIP2_PAPER,
        top1=top1,
        source=f"{_BIG_VISION}/README_siglip2.md",
        **common,
      )
