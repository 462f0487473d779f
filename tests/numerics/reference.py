"""Cases of tests/golden/reference: a model, weights, images, logits."""

import functools
import pathlib
import runpy
from collections.abc import Iterable

import jax
import numpy as np
import pytest

from vitjax import models, weights
from vitjax.models import batch_norm

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "reference"
TOLERANCE = 2e-5  # of the largest |logit|, in float32

functions = runpy.run_path(str(FOLDER / "refweights.py"))


@functools.cache
def case(name: str) -> dict:
  """The case of that name."""
  return functions["load_case"](name, FOLDER)


def arrays(name: str) -> dict[str, np.ndarray]:
  """The weights of a case, by the names of the published code."""
  return functions["weights"](case(name))


def create(name: str, model: str, **fields):
  """A model with the classes of a case."""
  classes = case(name)["model"]["num_classes"]
  return models.create(model, num_classes=classes, **fields)


def build(cases: dict[str, tuple[str, dict]], name: str, **options):
  """The model of a case: of its name and fields in `cases`, but `options`."""
  model, fields = cases[name]
  return create(name, model, **{**fields, **options})


def names(cases: Iterable[str]) -> list:
  """The cases as parameters of a test: the small ones, and slow ones."""
  return [
    pytest.param(name, marks=() if "mini" in name else pytest.mark.slow)
    for name in cases
  ]


def load(name: str, model, folder: pathlib.Path, flat=None, **options):
  """Weights of a case, by way of a file in the published layout."""
  file = folder / "weights.npz"
  np.savez(file, **(arrays(name) if flat is None else flat))
  size = tuple(case(name)["image_shape"][1:3])
  return weights.load(file, model, image_size=size, **options)


def distance(name: str, model, params) -> float:
  """Largest |difference| of logits, relative to the largest |logit|."""
  apply = jax.jit(lambda v, x: model.apply(v, x)[0])
  variables = batch_norm.split(params)
  logits = np.asarray(apply(variables, functions["images"](case(name))))
  want = np.asarray(case(name)["outputs"]["logits"], np.float32)
  return float(np.abs(logits - want).max() / np.abs(want).max())
