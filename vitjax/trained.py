"""What was trained, ready for use: from a run folder or an exported file."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from vitjax import checkpoint, models, run_folder, tokenizers, weights


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model with its parameters and how images have to be prepared for it.

  Attributes:
    model: obeys the contract of `vitjax.models`.
    params: nested dicts of float32 arrays.
    image_size: (height, width) in pixels that the model was trained for.
    channels: of the images.
    preprocess: the preprocessing string, see `vitjax.data.pp.builder`.
    class_names: by class id, or None.
    metadata: everything that `model.json` says, to be passed on.
  """

  model: Any
  params: Mapping[str, Any]
  image_size: tuple[int, int]
  channels: int
  preprocess: str
  class_names: tuple[str, ...] | None
  metadata: Mapping[str, Any]

  @property
  def tokenizer(self) -> tokenizers.Tokenizer:
    """Texts to the token ids that the text tower reads.

    Raises:
      ValueError: if the model does not read texts.
      ImportError: if the packages of `vitjax[text]` are not installed.
    """
    if "tokenizer" not in self.metadata:
      raise ValueError("this model reads images only: it has no tokenizer.")
    facts = dict(self.metadata["tokenizer"])
    return tokenizers.create(facts.pop("name"), **facts)


def load(
  path: str | os.PathLike, *, step: int | str = "latest", ema: bool = False
) -> Trained:
  """Loads a run folder, or an `.npz` with its `.json` beside it.

    run = vitjax.load("runs/quickstart")
    logits, out = run.model.apply({"params": run.params}, image)

  Args:
    path: of the run folder or of the exported file.
    step: of a run folder: a number, "latest" or "best".
    ema: of a run folder: the averaged parameters in place of the last ones.

  Raises:
    FileNotFoundError: if there is no such run or file.
    ValueError: if the file does not say which model it is of, or does not
      fit it.
    CheckpointError: if that step is absent or damaged.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    file = path / run_folder.MODEL
    if not file.exists():
      raise FileNotFoundError(f"{path} is not a run folder: {file} is missing.")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    model = models.create(**metadata["model"])
    step, params, _ = checkpoint.load_params(
      path / "checkpoints", step=step, item="ema_params" if ema else "params"
    )
    metadata |= {"step": step, "ema": ema}
  elif ema:
    raise ValueError(
      f"{path} is a file, which holds one set of parameters; ema=True is for "
      "run folders."
    )
  else:
    metadata = weights.read_metadata(path)
    needed = ("model", "image_size", "channels", "preprocess")
    if missing := [key for key in needed if key not in metadata]:
      raise ValueError(
        f"{path} has no {path.with_suffix('.json').name} beside it that says "
        f"{', '.join(missing)}. Use vitjax.models.create(...) and "
        "vitjax.weights.load(...)."
      )
    model = models.create(**metadata["model"])
    params = weights.load(path, model, channels=metadata["channels"])
  if "tokenizer" in metadata:
    folder = path if path.is_dir() else path.parent
    vocab = os.fspath(folder / metadata["tokenizer"]["vocab"])
    metadata["tokenizer"] = {**metadata["tokenizer"], "vocab": vocab}
  names = metadata.get("class_names")
  return Trained(
    model=model,
    params=params,
    image_size=tuple(metadata["image_size"]),
    channels=metadata["channels"],
    preprocess=metadata["preprocess"],
    class_names=names and tuple(names),
    metadata=metadata,
  )
