"""vitjax: train, resume, evaluate and convert image models in JAX and Flax.

Importing this package starts neither a JAX backend nor TensorFlow; the public
names below are imported when they are first used.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that is it.
_MODULES = {
  "attention": "vitjax.plots.attention_maps",
  "compare": "vitjax.compare",
  "models": "vitjax.models",
  "weights": "vitjax.weights",
}


def __getattr__(name: str) -> Any:
  if name in _MODULES:
    return importlib.import_module(_MODULES[name])
  if name == "load":
    return importlib.import_module("vitjax.trained").load
  raise AttributeError(f"module 'vitjax' has no attribute {name!r}")


def __dir__():
  return sorted([*globals(), *_MODULES, "load"])
