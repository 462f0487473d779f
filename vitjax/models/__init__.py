"""The table of models. Importing it loads no model and no JAX backend.

Every model obeys one contract, so that nothing else needs to know which one
it got:

  model = create(name, **options)
  params = model.init(key, image)["params"]
  logits, out = model.apply({"params": params}, image, train=False)

`image` is (b, h, w, c) float32, already normalised; `logits` is (b, n)
float32, or the pooled features (b, d) of a model without a head; `out` maps
names to intermediate arrays. Training with dropout or stochastic depth needs
`rngs={"dropout": key}`. Parameters of blocks that are stacked into one array
(`scan_layers`) are below a module called "encoderblock".

The text towers "text" and "bert" take token ids (b, t) int32 in place of the
image; "two_tower" takes both and returns (image_embedding, text_embedding,
out).
"""

import dataclasses
import importlib
import re
from collections.abc import Mapping
from typing import Any

from vitjax.config import messages

# Family -> the module of its model.
FAMILIES = {
  "bert": "vitjax.models.bert",
  "convnext": "vitjax.models.convnext",
  "mixer": "vitjax.models.mixer",
  "nfnet": "vitjax.models.nfnet",
  "resnet": "vitjax.models.resnet",
  "text": "vitjax.models.text",
  "two_tower": "vitjax.models.two_tower",
  "vit": "vitjax.models.vit",
}


def _module(name: str):
  """The module of model `name`: from the tables, or a dotted path."""
  if name in FAMILIES:
    return importlib.import_module(FAMILIES[name])
  for path in FAMILIES.values():
    module = importlib.import_module(path)
    if name in getattr(module, "PUBLISHED", {}):
      return module
  if "." in name:
    try:
      return importlib.import_module(name)
    except ImportError as e:
      raise ValueError(f"model {name!r} cannot be imported: {e}") from e
  hint = messages.did_you_mean(name, [*FAMILIES, *list()])
  raise ValueError(
    f"{name!r} is not a model.{hint} Known: {', '.join(sorted(FAMILIES))}; a "
    "published name of models.list(); or the dotted path of a module with a "
    "`Model` class and `decode_variant`."
  )


def is_listed(name: str) -> bool:
  """Whether `name` is a family or a published name of the tables."""
  return name in FAMILIES or name in list()


def list() -> dict[str, dict[str, Any]]:
  """Published name -> the architecture that it stands for.

  Each has "model" (the family), "fields" (options of `create`) and
  "image_size" in pixels; where it is known "params" (how many, with 1000
  classes); and "max_len" in tokens of a model that reads texts. What is known
  of files with weights is in `vitjax.weights.zoo`.
  """
  return {
    name: {"model": family, **facts}
    for family, path in FAMILIES.items()
    for name, facts in getattr(
      importlib.import_module(path), "PUBLISHED", {}
    ).items()
  }


def options(name: str) -> dict[str, Any]:
  """Option name -> type of everything that `create(name, ...)` accepts.

  Raises:
    ValueError: if there is no such model.
  """
  fields = dataclasses.fields(_module(name).Model)
  known = {f.name: f.type for f in fields if f.name not in ("parent", "name")}
  return {"variant": str | None, **known}


def create(name: str, *, variant: str | None = None, **kwargs):
  """Creates a model.

  Args:
    name: a family of the table; a name of `list()`, such as "ViT-B_16"; or
      the dotted path of your own module, which must have a Linen class
      `Model` and a function `decode_variant(variant) -> dict` of its fields.
    variant: a row of the family's table of variants, such as "S/16".
    **kwargs: fields of the model; they win over the variant's and over those
      of the published name.

  Returns:
    The `flax.linen.Module`. It holds no arrays.

  Raises:
    ValueError: if the model, the variant or an option is not known.
  """
  known = options(name)
  for key in kwargs:
    if key not in known:
      hint = messages.did_you_mean(key, known)
      raise ValueError(
        f"{key!r} is not an option of model {name!r}.{hint} "
        f"Known: {', '.join(sorted(known))}."
      )
  module = _module(name)
  if name not in FAMILIES and name in getattr(module, "PUBLISHED", {}):
    if variant is not None:
      raise ValueError(
        f"{name!r} already is a variant; drop variant={variant!r}, or name "
        "the family."
      )
    kwargs = {**module.PUBLISHED[name]["fields"], **kwargs}
    variant = kwargs.pop("variant", None)
  fields = module.decode_variant(variant) if variant is not None else {}
  return module.Model(**{**fields, **kwargs})


def is_stacked(name: str) -> bool:
  """Whether the first axis of the parameter `name` counts blocks."""
  return re.fullmatch(r"(.*/)?encoderblock/.*", name) is not None


def layers(
  model, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, int | tuple[int, ...]], int]:
  """The layer of each parameter, from the stem to the head.

  A model says what its layers are with a method `layers()`: one regex of
  whole parameter names for each, in order. The first is the stem, the last
  whatever follows the blocks. Stacked blocks match as many as there are.

  Args:
    model: from `create`.
    shapes: of its parameters, by name.

  Returns:
    Name -> layer, or one layer for each row of a stacked parameter; and the
    number of the last layer.

  Raises:
    ValueError: if the model does not say, or a parameter is in no layer.
  """
  if not hasattr(model, "layers"):
    raise ValueError(
      f"config.optim.layer_decay: {type(model).__module__} does not say what "
      "its layers are. Leave layer_decay out, or give its Model a method "
      "`layers` that returns a regex of parameter names for each layer, from "
      "the stem to the head."
    )
  patterns = [re.compile(regex) for regex in model.layers()]
  found = {}
  for name, shape in shapes.items():
    rows = tuple(i for i, p in enumerate(patterns) if p.fullmatch(name))
    if len(rows) != (shape[0] if is_stacked(name) else 1):
      raise ValueError(
        f"config.optim.layer_decay: parameter {name} {shape} is in "
        f"{len(rows)} of the layers of {type(model).__module__}."
      )
    found[name] = rows if is_stacked(name) else rows[0]
  return found, len(patterns) - 1


def default_dtype(platform: str) -> str:
  """Of computation: bfloat16 on TPU and GPU, float32 on a CPU."""
  return "float32" if platform == "cpu" else "bfloat16"
