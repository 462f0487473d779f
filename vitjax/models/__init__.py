"""The table of models. Importing it loads no model and no JAX backend.

All models have one contract, `vitjax.models.contract.Model`:

  model = create(name, **options)
  variables = model.init(key, image)
  logits, out = model.apply(variables, image, train=False)

`image` is (b, h, w, c) float32, already normalised; `logits` is (b, n)
float32, or the pooled features (b, d) of a model without a head; `out` maps
names to intermediate arrays. `variables` has "params", and with batch
normalisation the running statistics, see `batch_norm`. Training with dropout or
stochastic depth needs `rngs={"dropout": key}`. Parameters of blocks that are
stacked into one array (`scan_layers`) are below a module called "encoderblock",
see `trees.is_stacked`.

The text towers "text" and "bert" take token ids (b, t) int32 instead of the
image; "two_tower" takes both and returns (image_embedding, text_embedding,
out). Its method `scale` gives the temperature and the bias of the logits alone.
"captioner" also takes both, and returns (logits of the tokens (b, t, n), out),
or without a text the pooled features.
"""

import builtins
import dataclasses
import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitjax import trees
from vitjax.config import kinds, messages
from vitjax.models.contract import Model

# Family -> the module of its model.
FAMILIES = {
  "bert": "vitjax.models.bert",
  "captioner": "vitjax.models.captioner",
  "coatnet": "vitjax.models.coatnet",
  "convnext": "vitjax.models.convnext",
  "maxxvit": "vitjax.models.maxxvit",
  "mae": "vitjax.models.mae",
  "metaformer": "vitjax.models.metaformer",
  "efficientnet": "vitjax.models.efficientnet",
  "mixer": "vitjax.models.mixer",
  "nfnet": "vitjax.models.nfnet",
  "regnet": "vitjax.models.regnet",
  "resnet": "vitjax.models.resnet",
  "resnet_bn": "vitjax.models.resnet_bn",
  "swin": "vitjax.models.swin",
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
  if "." in name and all(part.isidentifier() for part in name.split(".")):
    return _own_module(name)
  hint = messages.did_you_mean(name, [*FAMILIES, *list()])
  raise ValueError(
    f"{name!r} is not a model.{hint} Known: {', '.join(sorted(FAMILIES))}; a "
    "published name of models.list(); or the dotted path of a module with a "
    "`Model` class and `decode_variant`."
  )


def is_listed(name: str) -> bool:
  """Whether `name` is a family or a published name of the tables."""
  return name in FAMILIES or name in list()


def _own_module(name: str):
  """The module at a dotted path, whose `Model` obeys the contract."""
  from vitjax.models import base  # imports Flax

  try:
    module = importlib.import_module(name)
  except ImportError as e:
    raise ValueError(f"model {name!r} cannot be imported: {e}.") from e
  if not hasattr(module, "Model"):
    raise ValueError(
      f"the module {name!r} has no class `Model`: see docs/extend.md."
    )
  base.check(module.Model, name)
  return module


def list() -> dict[str, dict[str, Any]]:
  """Published name -> its architecture.

  Each has "model" (the family), "fields" (options of `create`) and
  "image_size" in pixels; if known, "params" (number of parameters with 1000
  classes); and for models that read texts "max_len" in tokens. The records of
  files with weights are in `vitjax.weights.zoo`.
  """
  return {
    name: {"model": family, **facts}
    for family, path in FAMILIES.items()
    for name, facts in getattr(
      importlib.import_module(path), "PUBLISHED", {}
    ).items()
  }


def options(name: str) -> dict[str, Any]:
  """Option name -> type and range of all that `create(name, ...)` accepts.

  Raises:
    ValueError: if there is no such model, or it breaks the contract.
  """
  fields = dataclasses.fields(_module(name).Model)
  known = {f.name: f.type for f in fields if f.name not in ("parent", "name")}
  return {"variant": str | None, **known}


def problems(
  name: str, given: Mapping[str, Any], path: str = ""
) -> Sequence[str]:
  """Problems of options of `create(name, ...)`, one sentence each.

  Args:
    name: name of the model, as for `create`.
    given: options by name.
    path: prefix of an option's name in messages, such as "text.".

  Raises:
    ValueError: if there is no such model, or it breaks the contract.
  """
  known = options(name)
  errors = []
  for key, value in given.items():
    if key not in known:
      hint = messages.did_you_mean(key, known)
      errors.append(
        f"'{path}{key}' is not an option of model {name!r}.{hint} "
        f"Known: {', '.join(sorted(known))}."
      )
    elif error := kinds.problem(f"{path}{key}", value, known[key]):
      errors.append(error)
  return errors


def create(name: str, *, variant: str | None = None, **kwargs: Any) -> Model:
  """Creates a model.

  Args:
    name: a family of the table; a name of `list()`, such as "ViT-B_16"; or
      the dotted path of your own module, which must have a Linen class
      `Model` and a function `decode_variant(variant) -> dict` of its fields.
    variant: a row of the family's table of variants, such as "S/16".
    **kwargs: fields of the model; they win over the variant's and over those
      of the published name.

  Returns:
    A `flax.linen.Module`. It holds no arrays.

  Raises:
    ValueError: if the model, the variant or an option is not known, or an
      option has a wrong type or is out of its range.
  """
  if errors := problems(name, {"variant": variant, **kwargs}):
    raise ValueError("\n".join(errors))
  module = _module(name)
  if name not in FAMILIES and name in getattr(module, "PUBLISHED", {}):
    if variant is not None:
      raise ValueError(
        f"{name!r} already is a variant; drop variant={variant!r}, or name "
        "the family."
      )
    kwargs = {**module.PUBLISHED[name]["fields"], **kwargs}
    variant = kwargs.pop("variant", None)
  if variant is not None and not hasattr(module, "decode_variant"):
    raise ValueError(
      f"variant={variant!r}: the module {name!r} has no function "
      "`decode_variant`. Define it, or give the fields of `Model` instead."
    )
  fields = module.decode_variant(variant) if variant is not None else {}
  fields = {**fields, **kwargs}
  for key, value in fields.items():
    if isinstance(value, builtins.list):  # from JSON
      fields[key] = tuple(value)
  return module.Model(**fields)


def layers(
  model: Model, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, int | tuple[int, ...]], int]:
  """The layer of each parameter, from the stem to the head.

  Args:
    model: model from `create`; its method `layers` defines the layers.
    shapes: shapes of its parameters, by name. A projection to the features of
      a teacher, see `vitjax.distill`, is in the last layer.

  Returns:
    Name -> layer, or one layer for each row of a stacked parameter; and the
    number of the last layer.

  Raises:
    ValueError: if the model does not say, or a parameter is in no layer.
  """
  *first, last = model.layers()
  patterns = [
    re.compile(regex) for regex in (*first, f"{last}|teacher_projection/.*")
  ]
  found = {}
  for name, shape in shapes.items():
    rows = tuple(i for i, p in enumerate(patterns) if p.fullmatch(name))
    if len(rows) != (shape[0] if trees.is_stacked(name) else 1):
      raise ValueError(
        f"config.optim.layer_decay: parameter {name} {shape} is in "
        f"{len(rows)} of the layers of {type(model).__module__}."
      )
    found[name] = rows if trees.is_stacked(name) else rows[0]
  return found, len(patterns) - 1


def default_dtype(platform: str) -> str:
  """Default type of activations: float32 on a CPU, else bfloat16."""
  return "float32" if platform == "cpu" else "bfloat16"
