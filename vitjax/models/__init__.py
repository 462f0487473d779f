"""The table of models. Importing it loads no model and no JAX backend.

Every model obeys one contract, so that nothing else needs to know which one
it got:

  model = create(name, **options)
  params = model.init(key, image)["params"]
  logits, out = model.apply({"params": params}, image, train=False)

`image` is (b, h, w, c) float32, already normalised; `logits` is (b, n)
float32, or the pooled features (b, d) of a model without a head; `out` maps
names to intermediate arrays. Training with dropout or stochastic depth needs
`rngs={"dropout": key}`.

The text towers "text" and "bert" take token ids (b, t) int32 in place of the
image; "two_tower" takes both and returns (image_embedding, text_embedding,
out).
"""

import dataclasses
import difflib
import importlib
from typing import Any

_MODELS = {
  "bert": "vitjax.models.bert",
  "text": "vitjax.models.text",
  "two_tower": "vitjax.models.two_tower",
  "vit": "vitjax.models.vit",
}


def _module(name: str):
  """The module of model `name`: from the table, or a dotted path."""
  if name in _MODELS:
    return importlib.import_module(_MODELS[name])
  if "." in name:
    try:
      return importlib.import_module(name)
    except ImportError as e:
      raise ValueError(f"model {name!r} cannot be imported: {e}") from e
  near = difflib.get_close_matches(name, _MODELS, 1)
  hint = f" Did you mean {near[0]!r}?" if near else ""
  raise ValueError(
    f"{name!r} is not a model.{hint} Known: {', '.join(sorted(_MODELS))}; "
    "or the dotted path of a module with a `Model` class and `VARIANTS`."
  )


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
    name: a name of the table, or the dotted path of your own module, which
      must have a Linen class `Model` and a function
      `decode_variant(variant) -> dict` of its fields.
    variant: a row of the model's table of variants, such as "S/16".
    **kwargs: fields of the model; they win over the variant's.

  Returns:
    The `flax.linen.Module`. It holds no arrays.

  Raises:
    ValueError: if the model, the variant or an option is not known.
  """
  known = options(name)
  for key in kwargs:
    if key not in known:
      near = difflib.get_close_matches(key, known, 1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      raise ValueError(
        f"{key!r} is not an option of model {name!r}.{hint} "
        f"Known: {', '.join(sorted(known))}."
      )
  module = _module(name)
  fields = module.decode_variant(variant) if variant is not None else {}
  return module.Model(**{**fields, **kwargs})
