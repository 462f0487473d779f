"""How PyTorch lays tensors out, and layouts as tables of names.

A row of a table is (their name, our name, kind). A kind is a pair of
functions on arrays, theirs to ours and back; each undoes the other exactly.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Flat = dict[str, np.ndarray]


def linear(w: np.ndarray) -> np.ndarray:
  """(out, in), or a 1x1 convolution (out, in, 1, 1), to (in, out)."""
  return w.reshape(w.shape[:2]).T


def conv(w: np.ndarray) -> np.ndarray:
  """Convolution kernel, out-in-height-width to height-width-in-out."""
  return w.transpose(2, 3, 1, 0)


class Kind(NamedTuple):
  to_vitjax: Callable[[np.ndarray], np.ndarray]
  from_vitjax: Callable[[np.ndarray], np.ndarray]


SAME = Kind(lambda x: x, lambda x: x)
LINEAR = Kind(linear, lambda w: w.T)
LINEAR_1X1 = Kind(linear, lambda w: w.T[:, :, None, None])
CONV = Kind(conv, lambda w: w.transpose(3, 2, 0, 1))
# A table of relative positions; only `weights.fit` knows the rows and columns
# of the offsets, which are one axis in theirs.
OFFSETS = Kind(lambda x: x, lambda x: x.reshape(-1, x.shape[-1]))

Row = tuple[str, str, Kind]

# Our names of the GELU -> those of timm and of transformers.
TIMM_GELU = {"tanh": "gelu_tanh", "erf": "gelu", "quick": "quick_gelu"}
HF_GELU = {"tanh": "gelu_pytorch_tanh", "erf": "gelu", "quick": "quick_gelu"}

_COUNTER = ".num_batches_tracked"


def layer(theirs: str, ours: str, kind: Kind) -> list[Row]:
  """Rows of the kernel and the bias of a layer."""
  return [
    (f"{theirs}.weight", f"{ours}/kernel", kind),
    (f"{theirs}.bias", f"{ours}/bias", SAME),
  ]


def norm(theirs: str, ours: str) -> list[Row]:
  """Rows of the scale and the bias of a norm."""
  return [
    (f"{theirs}.weight", f"{ours}/scale", SAME),
    (f"{theirs}.bias", f"{ours}/bias", SAME),
  ]


def batch_norm(theirs: str, ours: str) -> list[Row]:
  """Rows of a batch norm: those of a norm, and the running statistics."""
  return [
    *norm(theirs, ours),
    (f"{theirs}.running_mean", f"{ours}/mean", SAME),
    (f"{theirs}.running_var", f"{ours}/var", SAME),
  ]


def to_vitjax(flat: Flat, rows: Iterable[Row]) -> Flat:
  """Renames and transforms what the rows know, and passes on the rest.

  PyTorch counts the batches of each batch norm, which nothing reads; the
  counters are dropped.
  """
  flat = {n: x for n, x in flat.items() if not n.endswith(_COUNTER)}
  found = [
    (ours, kind.to_vitjax(np.asarray(flat.pop(theirs))))
    for theirs, ours, kind in rows
    if theirs in flat
  ]
  return {**flat, **dict(found)}


def with_prefix(flat: Flat, prefix: str, first: str) -> Flat:
  """Adds the prefix of a model to all names, if `first` lacks it.

  transformers has it in models with a head, and not in bare ones.
  """
  if first not in flat:
    return flat
  return {f"{prefix}{name}": x for name, x in flat.items()}


def from_vitjax(flat: Flat, rows: Iterable[Row], layout: str) -> Flat:
  """Inverse of `to_vitjax`.

  Raises:
    ValueError: if there are arrays that the rows do not know.
  """
  flat = dict(flat)
  out = {
    theirs: kind.from_vitjax(np.asarray(flat.pop(ours)))
    for theirs, ours, kind in rows
    if ours in flat
  }
  if flat:
    raise ValueError(
      f"layout {layout!r} has no place for {', '.join(sorted(flat)[:5])}"
      f"{' and more' * (len(flat) > 5)}."
    )
  return out


def require(model, family: str, layout: str) -> None:
  """Says that `layout` only fits models of `family`.

  Raises:
    ValueError: if `model` is not one.
  """
  module = type(model).__module__
  known = [kind.__module__ for kind in type(model).__mro__]
  if f"vitjax.models.{family}" not in known:
    raise ValueError(
      f"layout {layout!r} holds models of 'vitjax.models.{family}', and this "
      f"one is of {module!r}. Create it with models.create({family!r}, ...)."
    )


def require_options(model, needed: Mapping[str, Any], layout: str) -> None:
  """Says which options `layout` needs.

  Raises:
    ValueError: if `model` has other ones.
  """
  for option, value in needed.items():
    if getattr(model, option) != value:
      raise ValueError(
        f"layout {layout!r} needs a model with {option}={value!r}; this one "
        f"has {getattr(model, option)!r}. Train such a model, or use "
        "layout='big_vision'."
      )


def require_layer_scale(model, layout: str) -> None:
  """Says that `layout` needs LayerScale.

  Raises:
    ValueError: if `model` has none.
  """
  if model.layer_scale_init is None:
    raise ValueError(
      f"layout {layout!r} needs a model with LayerScale; this one has "
      "layer_scale_init=None. Train such a model, or use layout='big_vision'."
    )


def timm_facts(model, metadata: Mapping[str, Any]) -> dict:
  """Arguments for `timm.create_model`, beside the name of the network.

  timm has the exact GELU by default; its NFNets and rotary ViTs have no other
  and refuse `act_layer`. Its Mixers take it as a class, which is
  `timm.layers.get_act_layer(name)`.
  """
  arguments = {"num_classes": model.num_classes or 0}
  is_gated = getattr(model, "swiglu", False)
  gelu = getattr(model, "gelu", "erf")
  if gelu != "erf" and not is_gated:
    arguments["act_layer"] = TIMM_GELU[gelu]
  if "channels" in metadata:
    arguments["in_chans"] = metadata["channels"]
  return {"timm": arguments}


def timm_facts_with_size(model, metadata: Mapping[str, Any]) -> dict:
  """`timm_facts` of a network that is made for images of one size."""
  arguments = timm_facts(model, metadata)["timm"]
  if "image_size" in metadata:
    arguments["img_size"] = metadata["image_size"]
  return {"timm": arguments}


def rename(flat: Flat, pairs: Iterable[tuple[str, str]]) -> Flat:
  """Renames whole arrays, and layers with their weight, bias or other leaf."""
  table = dict(pairs)

  def new(name):
    layer, dot, leaf = name.rpartition(".")
    return table.get(name) or f"{table.get(layer, layer)}{dot}{leaf}"

  return {new(name): x for name, x in flat.items()}


def rename_back(flat: Flat, pairs: Iterable[tuple[str, str]]) -> Flat:
  """Inverse of `rename`."""
  return rename(flat, [(ours, theirs) for theirs, ours in pairs])


def transformers_facts(model, metadata: Mapping[str, Any]) -> dict:
  """Values that the configs of all image models of transformers have."""
  size, channels = metadata.get("image_size"), metadata.get("channels")
  values = {"image_size": size, "num_channels": channels}
  values = {name: x for name, x in values.items() if x}
  values["hidden_act"] = HF_GELU[model.gelu]
  if hasattr(model, "num_heads"):  # a Vision Transformer
    values |= {
      "hidden_size": model.width,
      "num_hidden_layers": model.depth,
      "num_attention_heads": model.num_heads,
      "patch_size": model.patch_size,
    }
  return {**values, "layer_norm_eps": model.layer_norm_eps}


def heads_in(num_heads: int) -> Kind:
  """Kernel of a query, key or value: (h e, d) to (d, h, e)."""
  return Kind(
    lambda w: w.T.reshape(w.shape[1], num_heads, -1),
    lambda w: w.reshape(w.shape[0], -1).T,
  )


def heads_bias(num_heads: int) -> Kind:
  """Bias of a query, key or value: (h e) to (h, e)."""
  return Kind(lambda b: b.reshape(num_heads, -1), lambda b: b.reshape(-1))


def rotated(kind: Kind) -> Kind:
  """`kind` for a query or key whose channel i turns with channel i + e / 2.

  Ours turn with their neighbours. Any order of channels that queries and keys
  share gives the same scores.
  """

  def neighbours(x):
    pairs = x.reshape(*x.shape[:-1], 2, -1)
    return pairs.swapaxes(-1, -2).reshape(x.shape)

  def halves(x):
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return pairs.swapaxes(-1, -2).reshape(x.shape)

  return Kind(
    lambda x: neighbours(kind.to_vitjax(x)),
    lambda x: kind.from_vitjax(halves(x)),
  )


def heads_out(num_heads: int) -> Kind:
  """Kernel behind the attention: (d, h e) to (h, e, d)."""
  return Kind(
    lambda w: w.T.reshape(num_heads, -1, w.shape[0]),
    lambda w: w.reshape(-1, w.shape[-1]).T,
  )


def attention(
  qkv: Sequence[str],
  out: str,
  ours: str,
  num_heads: int,
  qk_heads: int | None = None,
  halves: bool = False,
) -> Iterator[Row]:
  """Rows of attention whose query, key, value and output have these names.

  `qk_heads` is the number of heads of query and key where it differs. `halves`
  is for those that `rotated` describes.
  """
  qk_heads = qk_heads or num_heads
  names = ("query", "key", "value")
  for theirs, name, n in zip(qkv, names, (qk_heads, qk_heads, num_heads)):
    kinds = [heads_in(n), heads_bias(n)]
    if halves and name != "value":
      kinds = [rotated(kind) for kind in kinds]
    yield f"{theirs}.weight", f"{ours}/{name}/kernel", kinds[0]
    yield f"{theirs}.bias", f"{ours}/{name}/bias", kinds[1]
  yield f"{out}.weight", f"{ours}/out/kernel", heads_out(num_heads)
  yield f"{out}.bias", f"{ours}/out/bias", SAME


class Fused(NamedTuple):
  """A layer of theirs that is several of ours.

  `parts` are names and widths, along the output (axis 0) or the input (1) of
  the weight. Where it is the input they share one bias, which is not split.
  """

  name: str
  parts: dict[str, int]
  axis: int = 0

  @property
  def leaves(self) -> tuple[str, ...]:
    return ("weight",) if self.axis else ("weight", "bias")


def split_fused(flat: Flat, fused: Iterable[Fused]) -> Flat:
  """Takes fused layers apart; those of another width stay as they are."""
  flat = dict(flat)
  for layer in fused:
    ends = np.cumsum(list(layer.parts.values()))
    for leaf in layer.leaves:
      x = flat.get(f"{layer.name}.{leaf}")
      if x is not None and x.shape[layer.axis] == ends[-1]:
        del flat[f"{layer.name}.{leaf}"]
        pieces = np.split(x, ends[:-1], layer.axis)
        for part, piece in zip(layer.parts, pieces):
          flat[f"{part}.{leaf}"] = piece
  return flat


def join_fused(flat: Flat, fused: Iterable[Fused]) -> Flat:
  """Inverse of `split_fused`."""
  flat = dict(flat)
  for layer in fused:
    for leaf in layer.leaves:
      names = [f"{part}.{leaf}" for part in layer.parts]
      if all(name in flat for name in names):
        pieces = [flat.pop(name) for name in names]
        flat[f"{layer.name}.{leaf}"] = np.concatenate(pieces, layer.axis)
  return flat
