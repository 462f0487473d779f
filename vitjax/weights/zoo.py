"""Published files: names, where they are, and which model they are for.

A name is that of the file without its suffix ("ViT-B_16" has two, so those
carry their folder), of timm's hub ("vit_base_patch16_224.augreg_in21k_ft_in1k",
with or without "timm/"), or of big_vision ("i1k-s16-90ep", "deit3_S_224_1k").
Where one set of weights has several homes they are mirrors of each other,
in the order in which they are tried; the oldest home comes last.

Publishers give no checksums beside the files. What servers say about a
file's checksum is verified by `download`.
"""

import dataclasses
import difflib
import functools
import posixpath
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from vitjax.weights import augreg

_HUB = "https://huggingface.co"
I21K_CLASSES = 21_843


@dataclasses.dataclass(frozen=True)
class File:
  """One home of a file. `size` is in bytes."""

  url: str
  size: int | None = None
  sha256: str | None = None

  @property
  def name(self) -> str:
    """The file's own name; on a hub, where all have one name, the model's."""
    path = urllib.parse.urlsplit(self.url).path
    base = posixpath.basename(path)
    if base == "model.safetensors":
      return f"{path.split('/')[2]}.safetensors"
    return base


@dataclasses.dataclass(frozen=True)
class Entry:
  """A published file.

  Attributes:
    name: as given to `find`.
    files: mirrors, in the order in which they are tried.
    model: name for `vitjax.models.create`.
    options: further options of `create`.
    image_size: pixels, that the file was made for.
    normalisation: of its images: "inception", "imagenet" or "clip".
    vocab: mirrors of the tokenizer's file of a text tower.
  """

  name: str
  files: tuple[File, ...]
  model: str
  options: Mapping[str, Any]
  image_size: int = 224
  normalisation: str = "inception"
  vocab: tuple[File, ...] = ()


def find(name: str) -> Entry:
  """The entry of a published name.

  Raises:
    KeyError: if there is none; its argument says what is near.
  """
  name = name.removeprefix("timm/")
  if name in entries():
    return entries()[name]
  try:
    return _augreg(name)
  except ValueError:
    near = difflib.get_close_matches(name, entries(), 3)
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise KeyError(
      f"{hint}`vitjax.weights.zoo.entries()` lists the names; any file name "
      "of AugReg's index.csv is one too."
    ) from None


@functools.cache
def entries() -> dict[str, Entry]:
  """All entries by name, without the tens of thousands of AugReg's grid."""
  found: dict[str, Entry] = {}
  for table in (
    _vit_originals,
    _augreg_recommended,
    _sam,
    _mixer,
    _big_vision,
    _two_towers,
    _deit,
    _deit3,
    _convnext,
    _nfnet,
    _bit,
    _searched,
  ):
    for entry in table():
      assert entry.name not in found, entry.name
      found[entry.name] = entry
  return found


def _timm(name: str) -> File:
  return File(f"{_HUB}/timm/{name}/resolve/main/model.safetensors")


def _classes(num_classes: int) -> dict[str, int]:
  return {"num_classes": num_classes}


# An Image is Worth 16x16 Words, fine-tuned at 384 or, as said, at 224.
_FINETUNED = {
  "ViT-B_16-224": ("ViT-B_16", 224),
  "ViT-B_16": ("ViT-B_16", 384),
  "ViT-B_32": ("ViT-B_32", 384),
  "ViT-L_16-224": ("ViT-L_16", 224),
  "ViT-L_16": ("ViT-L_16", 384),
  "ViT-L_32": ("ViT-L_32", 384),
  "R50+ViT-B_16": ("R50+ViT-B_16", 384),
}


def _vit_originals() -> Iterator[Entry]:
  """The files of ImageNet-21k have a tanh layer, and mostly a head of zeros."""
  names = ("ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32", "ViT-H_14")
  for name in (*names, "R50+ViT-B_16"):
    file = File(f"gs://vit_models/imagenet21k/{name}.npz")
    options = {**_classes(I21K_CLASSES), "rep_size": True}
    yield Entry(f"imagenet21k/{name}", (file,), name, options)
  for name, (model, size) in _FINETUNED.items():
    folder = "imagenet21k+imagenet2012"
    file = File(f"gs://vit_models/{folder}/{name}.npz")
    yield Entry(f"{folder}/{name}", (file,), model, _classes(1000), size)


# The checkpoints of the AugReg grid that timm has copied: timm's model, how it
# was trained on ImageNet-21k, and the learning rate on ImageNet-1k.
_TIMM_AUGREG = (
  ("vit_tiny_patch16_224", "Ti_16", "none-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_tiny_patch16_384", "Ti_16", "none-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_small_patch32_224", "S_32", "light1-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_small_patch32_384", "S_32", "light1-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_small_patch16_224", "S_16", "light1-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_small_patch16_384", "S_16", "light1-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_base_patch32_224", "B_32", "medium1-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_base_patch32_384", "B_32", "light1-wd_0.1-do_0.0-sd_0.0", 0.03),
  ("vit_base_patch16_224", "B_16", "medium1-wd_0.1-do_0.0-sd_0.0", 0.01),
  ("vit_base_patch16_384", "B_16", "medium1-wd_0.1-do_0.0-sd_0.0", 0.01),
  ("vit_base_patch8_224", "B_8", "medium1-wd_0.1-do_0.0-sd_0.0", 0.01),
  ("vit_large_patch16_224", "L_16", "medium1-wd_0.1-do_0.1-sd_0.1", 0.01),
  ("vit_large_patch16_384", "L_16", "medium1-wd_0.1-do_0.1-sd_0.1", 0.01),
  ("vit_tiny_r_s16_p8_224", "R_Ti_16", "none-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_tiny_r_s16_p8_384", "R_Ti_16", "none-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_small_r26_s32_224", "R26_S_32", "light0-wd_0.03-do_0.1-sd_0.1", 0.03),
  ("vit_small_r26_s32_384", "R26_S_32", "medium2-wd_0.03-do_0.0-sd_0.0", 0.03),
  ("vit_large_r50_s32_224", "R50_L_32", "medium1-wd_0.1-do_0.1-sd_0.1", 0.01),
  ("vit_large_r50_s32_384", "R50_L_32", "medium2-wd_0.1-do_0.0-sd_0.0", 0.01),
)


@functools.cache
def _augreg_mirrors() -> dict[str, str]:
  """AugReg's file name -> timm's name for the same weights."""
  mirrors = {}
  for model, key, recipe, rate in _TIMM_AUGREG:
    name = f"{key}-i21k-300ep-lr_0.001-aug_{recipe}"
    finetuned = f"imagenet2012-steps_20k-lr_{rate}-res_{model[-3:]}"
    mirrors[f"{name}--{finetuned}"] = f"{model}.augreg_in21k_ft_in1k"
  return mirrors


def _augreg(name: str) -> Entry:
  """Any file of the grid. Raises ValueError if the name is not of one."""
  name = name.removesuffix(".npz")
  facts = augreg.parse(name)
  files = (File(f"{augreg.FOLDER_URL}/{name}.npz"),)
  if name in _augreg_mirrors():
    files = (_timm(_augreg_mirrors()[name]), *files)
  options = _classes(facts.num_classes) if facts.num_classes else {}
  return Entry(name, files, facts.model, options, facts.image_size)


def _augreg_recommended() -> Iterator[Entry]:
  """Those that timm has too, by either name; timm's name has timm's GELU."""
  for name, timm_name in _augreg_mirrors().items():
    entry = _augreg(name)
    yield entry
    model = timm_name.partition(".")[0]
    yield dataclasses.replace(entry, name=timm_name, model=model)


def _sam() -> Iterator[Entry]:
  """ImageNet-1k without strong augmentation: SAM, then GSAM."""
  for name, model in (
    ("ViT-B_16", "vit_base_patch16_224.sam_in1k"),
    ("ViT-B_32", "vit_base_patch32_224.sam_in1k"),
  ):
    files = (_timm(model), File(f"gs://vit_models/sam/{name}.npz"))
    yield Entry(f"sam/{name}", files, name, _classes(1000))
  for size in ("S_16", "S_32", "B_16", "B_32"):
    name = f"ViT-{size}-gap-norep"
    file = File(f"gs://vit_models/gsam/{name}.npz")
    yield Entry(f"gsam/{name}", (file,), name, _classes(1000))


def _mixer() -> Iterator[Entry]:
  for folder, num_classes, names in (
    ("imagenet1k", 1000, ("Mixer-B_16", "Mixer-L_16")),
    ("imagenet21k", I21K_CLASSES, ("Mixer-B_16", "Mixer-L_16")),
    ("sam", 1000, ("Mixer-B_16", "Mixer-B_32")),
    ("gsam", 1000, ("Mixer-B_16", "Mixer-B_32")),
  ):
    for name in names:
      file = File(f"gs://mixer_models/{folder}/{name}.npz")
      yield Entry(f"{folder}/{name}", (file,), name, _classes(num_classes))
  for size in ("b16", "l16"):
    for tag, num_classes in (
      ("goog_in21k_ft_in1k", 1000),
      ("goog_in21k", I21K_CLASSES),
    ):
      model = f"mixer_{size}_224"
      name = f"{model}.{tag}"
      yield Entry(name, (_timm(name),), model, _classes(num_classes))


def _big_vision() -> Iterator[Entry]:
  """Better plain ViT baselines, and DeiT III for images in [-1, 1].

  DeiT III was trained with the exact GELU, which a ViT is not told apart by.
  Its LayerScale is folded into the kernels.
  """
  plain = {
    **_classes(1000),
    "variant": "S/16",
    "posemb": "sincos2d",
    "rep_size": True,
  }
  for epochs in (90, 150, 300):
    file = File(f"gs://big_vision/vit_s16_i1k_{epochs}ep.npz")
    yield Entry(f"i1k-s16-{epochs}ep", (file,), "vit", plain)
  for letter, size in (("S", "small"), ("B", "base"), ("L", "large")):
    options = {
      **_classes(1000),
      "variant": f"{letter}/16",
      "pool_type": "tok",
      "gelu": "erf",
    }
    for pixels in (224, 384):
      for data in ("1k", "21k"):
        path = f"zoo/deit3/bv_deit_3_{size}_{pixels}_{data}.npz"
        file = File(f"gs://big_vision/{path}")
        name = f"deit3_{letter}_{pixels}_{data}"
        yield Entry(name, (file,), "vit", options, pixels)


_SIGLIP = {
  "B/16 224": "webli_en_b16_224_63724782",
  "B/16 256": "webli_en_b16_256_60500360",
  "B/16 384": "webli_en_b16_384_68578854",
  "B/16 512": "webli_en_b16_512_68580893",
  "L/16 256": "webli_en_l16_256_60552751",
  "L/16 384": "webli_en_l16_384_63634585",
  "So400m/14 224": "webli_en_so400m_224_57633886",
  "So400m/14 384": "webli_en_so400m_384_58765454",
  "B/16-i18n 256": "webli_i18n_b16_256_66117334",
  "So400m/16-i18n 256": "webli_i18n_so400m_16_256_78061115",
}
_SIGLIP2 = {
  "B/32": (256,),
  "B/16": (224, 256, 384, 512),
  "L/16": (256, 384, 512),
  "So400m/14": (224, 384),
  "So400m/16": (256, 384, 512),
  "g-opt/16": (256, 384),
}


def _two_towers() -> Iterator[Entry]:
  """LiT and SigLIP. ":img" behind the path is the image tower alone."""
  lit = "gs://vit_models/lit"
  for name, suffix in (
    ("LiT-B16B", "txt"),
    ("LiT-B16B_2", "txt"),
    ("LiT-L16L", "txt"),
    ("LiT-L16S", "model"),
    ("LiT-L16Ti", "model"),
  ):
    vocab = (File(f"{lit}/{name}.{suffix}"),)
    if suffix == "txt":  # the vocabulary of every lower-cased BERT
      bert = f"{_HUB}/google-bert/bert-base-uncased/resolve/main/vocab.txt"
      vocab = (File(bert), *vocab)
    yield Entry(name, (File(f"{lit}/{name}.npz"),), name, {}, vocab=vocab)
  for key, file in _SIGLIP.items():
    corpus = "mc4.250000.100extra" if "i18n" in key else "cc_en.32000"
    yield Entry(
      f"SigLIP {key}",
      (File(f"gs://big_vision/siglip/{file}.npz"),),
      f"SigLIP {key}",
      {},
      int(key[-3:]),
      vocab=(File(f"gs://t5-data/vocabs/{corpus}/sentencepiece.model"),),
    )
  for variant, sizes in _SIGLIP2.items():
    for pixels in sizes:
      stem = variant.replace("/", "").replace("So", "so").replace("B", "b")
      stem = f"siglip2_{stem.replace('L', 'l')}_{pixels}"
      file = File(f"gs://big_vision/siglip2/{stem}.npz")
      name = f"SigLIP2 {variant} {pixels}"
      yield Entry(name, (file,), name, {}, pixels)


def _with_timm(
  name: str, timm_name: str, url: str, model: str, **facts
) -> Iterator[Entry]:
  """PyTorch's original and timm's copy of it, by either name."""
  entry = Entry(
    name,
    (_timm(timm_name), File(url)),
    model,
    normalisation="imagenet",
    **facts,
  )
  yield entry
  yield dataclasses.replace(entry, name=timm_name)


# DeiT; the original's file names end in the start of their sha256.
_DEIT = {
  "deit_tiny_patch16_224": "a1311bcf",
  "deit_small_patch16_224": "cd65a155",
  "deit_base_patch16_224": "b5f2ef4d",
  "deit_base_patch16_384": "8de9b5d1",
}


def _deit() -> Iterator[Entry]:
  for model, start in _DEIT.items():
    yield from _with_timm(
      model,
      f"{model}.fb_in1k",
      f"https://dl.fbaipublicfiles.com/deit/{model}-{start}.pth",
      model,
      options=_classes(1000),
      image_size=int(model[-3:]),
    )


def _deit3() -> Iterator[Entry]:
  for size, patch, resolutions in (
    ("small", 16, (224, 384)),
    ("medium", 16, (224,)),
    ("base", 16, (224, 384)),
    ("large", 16, (224, 384)),
    ("huge", 14, (224,)),
  ):
    for pixels in resolutions:
      for data, tag in (("1k", "fb_in1k"), ("21k", "fb_in22k_ft_in1k")):
        name = f"deit_3_{size}_{pixels}_{data}"
        version = "_v1" if size == "huge" else ""
        model = f"deit3_{size}_patch{patch}_{pixels}"
        yield from _with_timm(
          name,
          f"{model}.{tag}",
          f"https://dl.fbaipublicfiles.com/deit/{name}{version}.pth",
          model,
          options=_classes(1000),
          image_size=pixels,
        )


def _convnext() -> Iterator[Entry]:
  folder = "https://dl.fbaipublicfiles.com/convnext"
  for size in ("tiny", "small", "base", "large", "xlarge"):
    for data, tag, num_classes in (
      ("1k_224", "fb_in1k", 1000),
      ("22k_224", "fb_in22k", 21_841),
      ("22k_1k_224", "fb_in22k_ft_in1k", 1000),
      ("22k_1k_384", "fb_in22k_ft_in1k_384", 1000),
    ):
      if (size, data) == ("xlarge", "1k_224"):
        continue
      name = f"convnext_{size}_{data}"
      averaged = data == "1k_224" or (size == "xlarge" and "22k_1k" in data)
      yield from _with_timm(
        name,
        f"convnext_{size}.{tag}",
        f"{folder}/{name}{'_ema' if averaged else ''}.pth",
        name,
        options=_classes(num_classes),
        image_size=int(data[-3:]),
      )
  for size, tag in (  # timm's own, smaller than the paper's
    ("atto", "d2_in1k"),
    ("femto", "d1_in1k"),
    ("pico", "d1_in1k"),
    ("nano", "d1h_in1k"),
  ):
    model = f"convnext_{size}"
    files = (_timm(f"{model}.{tag}"),)
    name = f"{model}.{tag}"
    yield Entry(name, files, model, _classes(1000), 224, "imagenet")
  for size in ("base", "large"):
    name = f"convnext_{size}_1k_384"
    file = File(f"{folder}/{name}.pth")
    yield Entry(name, (file,), name, _classes(1000), 384, "imagenet")


def _nfnet() -> Iterator[Entry]:
  """The originals are pickles; timm's copies are tried first."""
  # Test resolutions, table 1 of https://arxiv.org/abs/2102.06171.
  for n, pixels in enumerate((256, 320, 352, 416, 512, 544, 576)):
    url = f"https://storage.googleapis.com/dm-nfnets/F{n}_haiku.npz"
    original = File(url, 285_976_842 if n == 0 else None)
    timm_name = f"dm_nfnet_f{n}.dm_in1k"
    for name, model in (
      (f"NFNet-F{n}", f"NFNet-F{n}"),
      (timm_name, f"dm_nfnet_f{n}"),
    ):
      yield Entry(
        name,
        (_timm(timm_name), original),
        model,
        _classes(1000),
        pixels,
        "imagenet",
      )


def _bit() -> Iterator[Entry]:
  """Big Transfer: S and M as pre-trained, M also fine-tuned."""
  folder = "https://storage.googleapis.com/bit_models"
  for size in ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4"):
    small, medium = f"BiT-S-R{size}", f"BiT-M-R{size}"
    file = File(f"{folder}/{small}.npz")
    yield Entry(small, (file,), small, _classes(1000))
    timm = f"resnetv2_{size}_bit"
    pixels = 480 if size == "152x4" else 448
    finetuned = f"{medium}-ILSVRC2012"
    for name, tag, num_classes, image_size in (
      (medium, "goog_in21k", I21K_CLASSES, 224),
      (finetuned, "goog_in21k_ft_in1k", 1000, pixels),
    ):
      files = (_timm(f"{timm}.{tag}"), File(f"{folder}/{name}.npz"))
      options = _classes(num_classes)
      yield Entry(name, files, medium, options, image_size)
      yield Entry(f"{timm}.{tag}", files, timm, options, image_size)


# timm's searched baselines, ViTs of sizes between Google's, and before them
# those without registers.
_SEARCHED = {
  "vit_medium_patch16_gap_240": ("sw_in12k",),
  "vit_medium_patch16_gap_256": ("sw_in12k_ft_in1k",),
  "vit_medium_patch16_gap_384": ("sw_in12k_ft_in1k",),
  "vit_dwee_patch16_reg1_gap_256": ("sbb_nadamuon_in1k",),
  "vit_dpwee_patch16_reg1_gap_256": ("sbb_nadamuon_in1k",),
  "vit_dlittle_patch16_reg1_gap_256": ("sbb_nadamuon_in1k",),
  "vit_wee_patch16_reg1_gap_256": ("sbb_in1k",),
  "vit_pwee_patch16_reg1_gap_256": ("sbb_in1k",),
  "vit_little_patch16_reg1_gap_256": ("sbb_in12k_ft_in1k", "sbb_in12k"),
  "vit_little_patch16_reg4_gap_256": ("sbb_in1k",),
  "vit_medium_patch16_reg1_gap_256": ("sbb_in1k",),
  "vit_medium_patch16_reg4_gap_256": (
    "sbb_in12k_ft_in1k",
    "sbb_in12k",
    "sbb_in1k",
  ),
  "vit_mediumd_patch16_reg4_gap_256": (
    "sbb2_e200_in12k_ft_in1k",
    "sbb2_e200_in12k",
    "sbb_in12k_ft_in1k",
    "sbb_in12k",
  ),
  "vit_mediumd_patch16_reg4_gap_384": ("sbb2_e200_in12k_ft_in1k",),
  "vit_betwixt_patch16_reg1_gap_256": ("sbb_in1k",),
  "vit_betwixt_patch16_reg4_gap_256": (
    "sbb2_e200_in12k_ft_in1k",
    "sbb2_e200_in12k",
    "sbb_in12k_ft_in1k",
    "sbb_in12k",
    "sbb_in1k",
  ),
  "vit_betwixt_patch16_reg4_gap_384": ("sbb2_e200_in12k_ft_in1k",),
  "vit_so150m_patch16_reg4_gap_256": (
    "sbb_e250_in12k_ft_in1k",
    "sbb_e250_in12k",
  ),
  "vit_so150m_patch16_reg4_gap_384": ("sbb_e250_in12k_ft_in1k",),
  "vit_so150m2_patch16_reg1_gap_256": (
    "sbb_e200_in12k_ft_in1k",
    "sbb_e200_in12k",
  ),
  "vit_so150m2_patch16_reg1_gap_384": ("sbb_e200_in12k_ft_in1k",),
  "vit_so150m2_patch16_reg1_gap_448": ("sbb_e200_in12k_ft_in1k",),
}


def _searched() -> Iterator[Entry]:
  for model, tags in _SEARCHED.items():
    for tag in tags:
      name = f"{model}.{tag}"
      options = _classes(1000 if tag.endswith("in1k") else 11_821)
      yield Entry(name, (_timm(name),), model, options, int(model[-3:]))
