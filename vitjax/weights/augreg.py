"""File names and index of How to train your ViT?

https://arxiv.org/abs/2106.10270: fifty thousand Vision Transformers whose
file names say how they were trained, and a table of them, `index.csv`.

  from vitjax.weights import augreg, download
  index = download.fetch(augreg.INDEX_URL)
  file = download.fetch(augreg.recommended("R_Ti_16", index))
"""

import csv
import dataclasses
import os
import re

FOLDER_URL = "gs://vit_models/augreg"
INDEX_URL = f"{FOLDER_URL}/index.csv"

# The name in file names -> the published name of the model.
MODELS = {
  "Ti_16": "ViT-Ti_16",
  "S_16": "ViT-S_16",
  "S_32": "ViT-S_32",
  "B_8": "ViT-B_8",
  "B_16": "ViT-B_16",
  "B_32": "ViT-B_32",
  "L_16": "ViT-L_16",
  "R_Ti_16": "R+ViT-Ti_16",
  "R26_S_32": "R26+ViT-S_32",
  "R50_L_32": "R50+ViT-L_32",
}

_CLASSES = {
  "i1k": 1000,
  "i21k": 21_843,
  "i21k_30": 21_843,
  "imagenet2012": 1000,
  "cifar100": 100,
  "pets37": 37,
  "resisc45": 45,
}
_NUMBER = r"\d+(?:\.\d+)?"
_NAME = re.compile(
  rf"(?P<model>\w+)-(?P<dataset>i1k|i21k_30|i21k)-(?P<epochs>\d+)ep"
  rf"-lr_(?P<learning_rate>{_NUMBER})-aug_(?P<augmentation>[a-z]+\d?)"
  rf"-wd_(?P<weight_decay>{_NUMBER})-do_(?P<dropout_rate>{_NUMBER})"
  rf"-sd_(?P<drop_path_rate>{_NUMBER})"
  rf"(?:--(?P<finetune_dataset>[\w-]+?)-steps_(?P<finetune_steps>\d+)k"
  rf"-lr_(?P<finetune_learning_rate>{_NUMBER})-res_(?P<image_size>\d+))?"
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """The contents of a file name; without fine-tuning, its fields are None.

  Attributes:
    model: published name, such as "ViT-B_16".
    dataset: data of the pre-training: "i1k", "i21k", or "i21k_30" of 30
      epochs.
    augmentation: "none", "light1" and so on to "strong2".
    finetune_steps: steps, not thousands of them.
    image_size: side of the images of the last training, in pixels.
    num_classes: classes of the head; None if the data set is unknown here.
  """

  model: str
  dataset: str
  epochs: int
  learning_rate: float
  augmentation: str
  weight_decay: float
  dropout_rate: float
  drop_path_rate: float
  finetune_dataset: str | None
  finetune_steps: int | None
  finetune_learning_rate: float | None
  image_size: int
  num_classes: int | None


def parse(name: str) -> Checkpoint:
  """Reads a file name, with or without ".npz".

  Raises:
    ValueError: if it is not such a name.
  """
  match = _NAME.fullmatch(name.removesuffix(".npz"))
  if not match or match["model"] not in MODELS:
    raise ValueError(
      f"{name!r} is not the name of an AugReg checkpoint. It looks like "
      "'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
      "--imagenet2012-steps_20k-lr_0.01-res_224'; models: "
      f"{', '.join(MODELS)}."
    )
  steps, rate = match["finetune_steps"], match["finetune_learning_rate"]
  return Checkpoint(
    model=MODELS[match["model"]],
    dataset=match["dataset"],
    epochs=int(match["epochs"]),
    learning_rate=float(match["learning_rate"]),
    augmentation=match["augmentation"],
    weight_decay=float(match["weight_decay"]),
    dropout_rate=float(match["dropout_rate"]),
    drop_path_rate=float(match["drop_path_rate"]),
    finetune_dataset=match["finetune_dataset"],
    finetune_steps=1000 * int(steps) if steps else None,
    finetune_learning_rate=float(rate) if rate else None,
    image_size=int(match["image_size"] or 224),
    num_classes=_CLASSES.get(match["finetune_dataset"] or match["dataset"]),
  )


def recommended(
  model: str, index: str | os.PathLike, *, dataset: str = "i21k"
) -> str:
  """The best checkpoint to fine-tune, by the rule of the published code.

  Of the rows with this model and pre-training it has the highest accuracy on
  the data set of the pre-training, `final_val`.

  Args:
    model: "R_Ti_16", or the published name "R+ViT-Ti_16".
    index: path of `index.csv`.
    dataset: data of the pre-training.

  Returns:
    The file name without ".npz", which `download.fetch` understands.

  Raises:
    ValueError: if the index is not one, or has no such row.
  """
  key = model.replace("ViT-", "").replace("+", "_")
  with open(index, newline="", encoding="utf-8") as f:
    rows = list(csv.DictReader(f))
  needed = {"name", "ds", "final_val", "filename"}
  if not rows or not needed <= rows[0].keys():
    raise ValueError(
      f"{os.fspath(index)!r} is not AugReg's index.csv: it needs rows with "
      f"the columns {', '.join(sorted(needed))}."
    )
  matching = [
    row
    for row in rows
    if row["name"] == key and row["ds"] == dataset and row["final_val"]
  ]
  if not matching:
    known = sorted({row["name"] for row in rows if row["ds"] == dataset})
    raise ValueError(
      f"{os.fspath(index)!r} has no model {model!r} that was trained on "
      f"{dataset!r}. Known: {', '.join(known)}."
    )
  best = max(matching, key=lambda row: float(row["final_val"]))
  return best["filename"].removesuffix(".npz")
