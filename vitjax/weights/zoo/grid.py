"""AugReg, How to train your ViT?: any file of its grid, and timm's copies.

The grid has tens of thousands of files, whose names say how they were trained
(`vitjax.weights.augreg`). Listed here are those with a second home and those
that the authors recommend.
"""

import dataclasses
import functools
from collections.abc import Iterator

from vitjax.weights import augreg
from vitjax.weights.zoo.entry import (
  HEAD_1K,
  I1K,
  I21K,
  PYTORCH,
  TIMM_RESULTS,
  Entry,
  File,
  shorter_side,
  timm,
)

_PAPER = "https://arxiv.org/abs/2106.10270"
_README = "https://github.com/google-research/vision_transformer"

# The checkpoints of the grid that timm has copied, as timm's source names
# them. Model in the grid's file names -> timm's model.
_TIMM_MODELS = {
  "Ti_16": "vit_tiny_patch16",
  "S_16": "vit_small_patch16",
  "S_32": "vit_small_patch32",
  "B_8": "vit_base_patch8",
  "B_16": "vit_base_patch16",
  "B_32": "vit_base_patch32",
  "L_16": "vit_large_patch16",
  "R_Ti_16": "vit_tiny_r_s16_p8",
  "R26_S_32": "vit_small_r26_s32",
  "R50_L_32": "vit_large_r50_s32",
}

# How each was trained on ImageNet-21k, and whether timm has that file too.
_I21K = (
  ("Ti_16", "none-wd_0.03-do_0.0-sd_0.0"),
  ("S_32", "light1-wd_0.03-do_0.0-sd_0.0"),
  ("S_16", "light1-wd_0.03-do_0.0-sd_0.0"),
  ("B_32", "medium1-wd_0.03-do_0.0-sd_0.0"),
  ("B_16", "medium1-wd_0.1-do_0.0-sd_0.0"),
  ("B_8", "medium1-wd_0.1-do_0.0-sd_0.0"),
  ("L_16", "medium1-wd_0.1-do_0.1-sd_0.1"),
  ("R_Ti_16", "none-wd_0.03-do_0.0-sd_0.0"),
  ("R26_S_32", "medium2-wd_0.03-do_0.0-sd_0.0"),
  ("R50_L_32", "medium2-wd_0.1-do_0.0-sd_0.0"),
)

# How it was pre-trained, the learning rate on ImageNet-1k, pixels, and the
# top-1 that timm measured.
_I21K_I1K = (
  ("Ti_16", "none-wd_0.03-do_0.0-sd_0.0", 0.03, 224, 75.452),
  ("Ti_16", "none-wd_0.03-do_0.0-sd_0.0", 0.03, 384, 78.438),
  ("S_32", "light1-wd_0.03-do_0.0-sd_0.0", 0.03, 224, 76.010),
  ("S_32", "light1-wd_0.03-do_0.0-sd_0.0", 0.03, 384, 80.476),
  ("S_16", "light1-wd_0.03-do_0.0-sd_0.0", 0.03, 224, 81.402),
  ("S_16", "light1-wd_0.03-do_0.0-sd_0.0", 0.03, 384, 83.814),
  ("B_32", "medium1-wd_0.03-do_0.0-sd_0.0", 0.03, 224, 80.732),
  ("B_32", "light1-wd_0.1-do_0.0-sd_0.0", 0.03, 384, 83.358),
  ("B_16", "medium1-wd_0.1-do_0.0-sd_0.0", 0.01, 224, 84.534),
  ("B_16", "medium1-wd_0.1-do_0.0-sd_0.0", 0.01, 384, 86.010),
  ("B_8", "medium1-wd_0.1-do_0.0-sd_0.0", 0.01, 224, 85.838),
  ("L_16", "medium1-wd_0.1-do_0.1-sd_0.1", 0.01, 224, 85.856),
  ("L_16", "medium1-wd_0.1-do_0.1-sd_0.1", 0.01, 384, 87.096),
  ("R_Ti_16", "none-wd_0.03-do_0.0-sd_0.0", 0.03, 224, 71.800),
  ("R_Ti_16", "none-wd_0.03-do_0.0-sd_0.0", 0.03, 384, 75.962),
  ("R26_S_32", "light0-wd_0.03-do_0.1-sd_0.1", 0.03, 224, 81.856),
  ("R26_S_32", "medium2-wd_0.03-do_0.0-sd_0.0", 0.03, 384, 84.066),
  ("R50_L_32", "medium1-wd_0.1-do_0.1-sd_0.1", 0.01, 224, 84.434),
  ("R50_L_32", "medium2-wd_0.1-do_0.0-sd_0.0", 0.01, 384, 86.188),
)
_I1K_I1K = (
  ("S_16", "medium2-wd_0.1-do_0.0-sd_0.0", 0.01, 224, 78.842),
  ("S_16", "medium2-wd_0.1-do_0.0-sd_0.0", 0.01, 384, 81.130),
  ("B_32", "medium2-wd_0.1-do_0.1-sd_0.1", 0.01, 224, 74.908),
  ("B_32", "medium2-wd_0.1-do_0.1-sd_0.1", 0.01, 384, 78.750),
  ("B_16", "strong2-wd_0.1-do_0.1-sd_0.1", 0.01, 224, 79.154),
  ("B_16", "strong2-wd_0.1-do_0.1-sd_0.1", 0.01, 384, 81.102),
)

# The checkpoint of each size that the authors recommend for fine-tuning, the
# learning rate of theirs on ImageNet-1k at 384 pixels, and its top-1: the
# table of vision_transformer's README.
_RECOMMENDED = {
  "L_16": ("strong1-wd_0.1-do_0.0-sd_0.0", 0.01, 85.59),
  "B_16": ("medium1-wd_0.1-do_0.0-sd_0.0", 0.03, 85.49),
  "S_16": ("light1-wd_0.03-do_0.0-sd_0.0", 0.03, 83.73),
  "R50_L_32": ("medium1-wd_0.1-do_0.1-sd_0.1", 0.01, 85.99),
  "R26_S_32": ("light1-wd_0.1-do_0.0-sd_0.0", 0.01, 83.85),
  "Ti_16": ("none-wd_0.03-do_0.0-sd_0.0", 0.03, 78.22),
  "B_32": ("light1-wd_0.1-do_0.0-sd_0.0", 0.01, 83.59),
  "S_32": ("none-wd_0.1-do_0.0-sd_0.0", 0.01, 79.58),
  "R_Ti_16": ("none-wd_0.03-do_0.0-sd_0.0", 0.03, 75.40),
}


def _pretrained(key: str, recipe: str, data: str = "i21k") -> str:
  return f"{key}-{data}-300ep-lr_0.001-aug_{recipe}"


def _finetuned(name: str, rate: float, pixels: int) -> str:
  return f"{name}--imagenet2012-steps_20k-lr_{rate}-res_{pixels}"


@functools.cache
def _mirrors() -> dict[str, tuple[str, float | None]]:
  """The grid's name -> timm's name for the same weights, and its top-1."""
  found: dict[str, tuple[str, float | None]] = {}
  for data, rows, tag in (
    ("i21k", _I21K_I1K, "augreg_in21k_ft_in1k"),
    ("i1k", _I1K_I1K, "augreg_in1k"),
  ):
    for key, recipe, rate, pixels, top1 in rows:
      name = _finetuned(_pretrained(key, recipe, data), rate, pixels)
      found[name] = f"{_TIMM_MODELS[key]}_{pixels}.{tag}", top1
  for key, recipe in _I21K:
    timm_name = f"{_TIMM_MODELS[key]}_224.augreg_in21k"
    found[_pretrained(key, recipe)] = timm_name, None
  return found


@functools.cache
def _published_accuracy() -> dict[str, float]:
  return {
    _finetuned(_pretrained(key, recipe), rate, 384): top1
    for key, (recipe, rate, top1) in _RECOMMENDED.items()
  }


def recommended(key: str) -> str | None:
  """The pre-trained checkpoint that the authors recommend for fine-tuning.

  Args:
    key: "R_Ti_16", or the published name "R+ViT-Ti_16".

  Returns:
    Its name in the grid; None if there is no such recommendation.
  """
  key = key.replace("ViT-", "").replace("+", "_")
  if key not in _RECOMMENDED:
    return None
  return _pretrained(key, _RECOMMENDED[key][0])


def grid(name: str) -> Entry:
  """The entry of any file of the grid.

  Raises:
    ValueError: if the name is not that of one.
  """
  name = name.removesuffix(".npz")
  facts = augreg.parse(name)
  file = File(f"{augreg.FOLDER_URL}/{name}.npz")
  timm_name, _ = _mirrors().get(name, (None, None))
  top1 = _published_accuracy().get(name)
  on_1k = (facts.finetune_dataset or facts.dataset) in ("imagenet2012", "i1k")
  data = (I1K if facts.dataset == "i1k" else I21K,)
  if facts.finetune_dataset:
    data += (
      I1K
      if facts.finetune_dataset == "imagenet2012"
      else facts.finetune_dataset,
    )
  return Entry(
    name,
    (timm(timm_name), file) if timm_name else (file,),
    facts.model,
    {"num_classes": facts.num_classes} if facts.num_classes else {},
    facts.image_size,
    classes=HEAD_1K["classes"] if on_1k else None,
    loss="softmax_xent" if facts.finetune_dataset else "sigmoid_xent",
    data=data,
    paper=_PAPER,
    top1=top1,
    source=_README if top1 else None,
    instead=None if timm_name else _nearest(name, facts),
  )


def _nearest(name: str, facts: augreg.Checkpoint) -> str:
  """timm's copy of the same model, fine-tuned or not."""
  model = _TIMM_MODELS[name.partition("-")[0]]
  if not facts.finetune_dataset:
    return f"{model}_224.augreg_in21k"
  named = f"{model}_{facts.image_size}.augreg_in21k_ft_in1k"
  known = {timm_name for timm_name, _ in _mirrors().values()}
  return named if named in known else f"{model}_224.augreg_in21k_ft_in1k"


def listed() -> Iterator[Entry]:
  """timm's copies by either name, then what else the authors recommend.

  A name of timm's has timm's GELU and resizing.
  """
  for name, (timm_name, top1) in _mirrors().items():
    entry = grid(name)
    yield entry
    crop = 1.0 if entry.image_size == 384 else 0.9
    yield dataclasses.replace(
      entry,
      name=timm_name,
      model=timm_name.partition(".")[0],
      top1=top1,
      source=TIMM_RESULTS if top1 else None,
      **shorter_side(entry.image_size, crop),
      **PYTORCH,
    )
  for key, (recipe, rate, _) in _RECOMMENDED.items():
    pretrained = _pretrained(key, recipe)
    for name in (pretrained, _finetuned(pretrained, rate, 384)):
      if name not in _mirrors():
        yield grid(name)
