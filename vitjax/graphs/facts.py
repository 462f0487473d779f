"""Facts about an exported graph, for its metadata or the card beside it."""

import pathlib
from typing import Any

import numpy as np

import vitjax

_PASSED = (
  "model",
  "image_size",
  "channels",
  "preprocess",
  "class_names",
  "loss",
  "data",
  "step",
  "ema",
)


def of(trained, form: str, input: str, tower: str, precision: str) -> dict:
  """What a program needs to use the graph, and where it comes from."""
  metadata = trained.metadata
  facts: dict[str, Any] = {
    "format": form,
    "vitjax": vitjax.__version__,
    "source": trained.source,
    "precision": precision,
    "tower": tower if trained.has_two_towers else None,
    "input": "token ids" if tower == "txt" else input,
  }
  facts |= {key: metadata.get(key) for key in _PASSED}
  if trained.has_two_towers:
    facts["temperature"] = float(np.exp(np.ravel(trained.params["t"])[0]))
    facts["bias"] = float(np.ravel(trained.params.get("b", 0.0))[0])
    tokenizer = metadata.get("tokenizer")
    if tokenizer is not None:
      vocab = pathlib.PurePath(tokenizer["vocab"]).name
      facts["tokenizer"] = {**tokenizer, "vocab": vocab}
  return {key: x for key, x in facts.items() if x is not None}
