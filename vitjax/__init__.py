"""vitjax: train, resume, evaluate and convert image models in JAX and Flax.

Importing this package starts neither a JAX backend nor TensorFlow; the public
names below are imported when they are first used.
"""

import importlib

__version__ = "0.1.0"

_SUBMODULES = ("attention", "compare", "models", "weights")


def __getattr__(name: str):
  if name in _SUBMODULES:
    return importlib.import_module(f"vitjax.{name}")
  if name == "load":
    return importlib.import_module("vitjax.trained").load
  raise AttributeError(f"module 'vitjax' has no attribute {name!r}")


def __dir__():
  return sorted([*globals(), *_SUBMODULES, "load"])
