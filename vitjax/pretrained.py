"""The weights that a run begins with: a file, a published name or a run.

Every number of the result is what the file says, except where the config says
otherwise: parameters in `config.init.reinit` start anew, and position tables
are resized to the images of this run.
"""

import os
import pathlib

import jax

from vitjax import trained, trees, weights
from vitjax.config import ConfigError, RunConfig
from vitjax.weights import augreg, npz

_AUGREG = "augreg:"


def load(run: RunConfig, model, image_shape: tuple[int, ...]):
  """Parameters of `model` from `run.init.weights`.

  Args:
    run: its `init`, `pretrained_dir` and `seed` are read.
    model: the Linen module that is trained.
    image_shape: (b, h, w, c) of its images.

  Returns:
    Nested dicts of float32 NumPy arrays.

  Raises:
    ConfigError: if the weights are not there or do not fit; says what to do.
  """
  options = {
    "image_size": tuple(image_shape[1:3]),
    "channels": image_shape[3],
    "reinit": run.init.reinit,
    "ignore": run.init.ignore,
    "key": jax.random.key(run.seed),
  }
  try:
    folder = pathlib.Path(run.init.weights)
    if folder.is_dir():
      other = trained.load(folder)
      return weights.fit(
        trees.flatten(other.params),
        model,
        source=repr(run.init.weights),
        metadata=other.metadata,
        **options,
      )
    file = find(run.init.weights, run.pretrained_dir)
    return weights.load(file, model, **options)
  except (ValueError, OSError, RuntimeError) as e:
    raise ConfigError(f"config.init.weights={run.init.weights!r}: {e}") from e


def find(name: str, pretrained_dir: str | None = None) -> str:
  """The local path of weights by any of their names; downloads what lacks it.

  Args:
    name: a path, a URL, a published name (see `weights.zoo`), or
      "augreg:R_Ti_16" for the checkpoint of How to train your ViT? that its
      index recommends for fine-tuning. ":NAME" behind it is a sub-tree.
    pretrained_dir: a folder, URL or gs://bucket/folder to look for published
      names in; None for where they are published.
  """
  if name.startswith(_AUGREG):
    folder = (pretrained_dir or augreg.FOLDER_URL).rstrip("/")
    index = weights.fetch(f"{folder}/index.csv")
    name = augreg.recommended(name.removeprefix(_AUGREG), index)
  _, subtree = npz.split_subtree(name)
  source = name.removesuffix(f":{subtree}") if subtree else name
  file = weights.fetch(source, pretrained_dir=pretrained_dir)
  return f"{file}:{subtree}" if subtree else os.fspath(file)
