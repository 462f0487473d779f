"""Reads and writes the weights of models, in the layouts people publish.

`load` is strict: missing, extra or misshapen arrays of a file are an error
unless you name them. `save` writes the arrays, and beside them a JSON file
that says how to use them. Nothing is downloaded unless you ask for it:
`load(fetch("sam/ViT-B_16"), model)`; see `download.fetch`.

Importing this package loads neither JAX nor NumPy, so that config files can
read the records of published files in `vitjax.weights.zoo`.
"""

import importlib
from typing import Any

# Public name -> the module that has it.
_PUBLIC = {
  "fetch": "download",
  "fit": "fitting",
  "initial": "fitting",
  "load": "loading",
  "read_metadata": "description",
  "save": "loading",
}
_SUBMODULES = (
  "augreg",
  "description",
  "download",
  "files",
  "fitting",
  "hub",
  "imagenet",
  "integrity",
  "layouts",
  "npz",
  "published",
  "resample",
  "stem",
  "zoo",
)


def __getattr__(name: str) -> Any:
  if name in _PUBLIC:
    module = importlib.import_module(f"vitjax.weights.{_PUBLIC[name]}")
    return getattr(module, name)
  if name in _SUBMODULES:
    return importlib.import_module(f"vitjax.weights.{name}")
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
  return sorted([*globals(), *_PUBLIC, *_SUBMODULES])
