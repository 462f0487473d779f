"""Renaming that the layouts of Vision Transformers share."""

import re
from collections.abc import Mapping

import numpy as np

from vitjax.models import common

Flat = dict[str, np.ndarray]

_NUMBERED = re.compile(
  r"(LayerNorm|MultiHeadDotProductAttention|MlpBlock)_(\d+)"
)
_INLINED_MAP = (
  "probe",
  "MlpBlock_0/",
  "MultiHeadDotProductAttention_0/",
  "LayerNorm_0/",
)
_LEGACY_BLOCK = {
  "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
  "LayerNorm_1": "LayerNorm_2",
  "MlpBlock_0": "MlpBlock_3",
}
_BLOCKS = "Transformer/encoderblock"
_QKV = re.compile(rf"{_BLOCKS}_\d+/\w+/(query|key|value)/kernel")
TABLE = "Transformer/posembed_input/pos_embedding"
_TABLES = (TABLE, "Transformer/pos_embedding")


def renumber(flat: Mapping[str, np.ndarray]) -> Flat:
  """Replaces the numbers from before Linen by Linen's; keeps Linen's.

  Before Linen one counter numbered all modules of a parent (`LayerNorm_0`,
  `MultiHeadDotProductAttention_1`, `LayerNorm_2`, `MlpBlock_3`); Linen counts
  each class. Only classes of a ViT are touched: `encoderblock_3` alone, or
  the stages of another family, keep their numbers.
  """
  numbers: dict[tuple[str, str], set[int]] = {}
  for name in flat:
    parts = name.split("/")
    for i, part in enumerate(parts):
      if match := _NUMBERED.fullmatch(part):
        parent = "/".join(parts[:i])
        numbers.setdefault((parent, match[1]), set()).add(int(match[2]))

  def rename(name):
    parts = name.split("/")
    new = list(parts)
    for i, part in enumerate(parts):
      if match := _NUMBERED.fullmatch(part):
        seen = sorted(numbers["/".join(parts[:i]), match[1]])
        new[i] = f"{match[1]}_{seen.index(int(match[2]))}"
    return "/".join(new)

  return {rename(name): x for name, x in flat.items()}


def renumber_legacy(flat: Mapping[str, np.ndarray]) -> Flat:
  """Gives only the encoder's blocks their numbers from before Linen."""

  def rename(name):
    parts = name.split("/")
    if name.startswith(f"{_BLOCKS}_") and parts[2] in _LEGACY_BLOCK:
      parts[2] = _LEGACY_BLOCK[parts[2]]
    return "/".join(parts)

  return {rename(name): x for name, x in flat.items()}


def move(flat: Mapping[str, np.ndarray]) -> Flat:
  """Moves arrays from the places that older versions had for them.

  The position table moves to the root, and attention pooling that is inlined
  at the root moves to `MAPHead_0`.
  """

  def place(name):
    if name in _TABLES:
      return "pos_embedding"
    return f"MAPHead_0/{name}" if name.startswith(_INLINED_MAP) else name

  return {place(name): x for name, x in flat.items()}


def stack_blocks(flat: Mapping[str, np.ndarray], stacked: bool) -> Flat:
  """Blocks as one tree with a leading depth axis (`scan`), or one by one."""
  out, blocks = {}, {}
  for name, x in flat.items():
    if match := re.fullmatch(rf"{_BLOCKS}_(\d+)/(.+)", name):
      blocks.setdefault(match[2], {})[int(match[1])] = x
    elif name.startswith(f"{_BLOCKS}/"):
      leaf = name.removeprefix(f"{_BLOCKS}/")
      blocks.setdefault(leaf, {}).update(enumerate(x))
    else:
      out[name] = x
  for leaf, xs in blocks.items():
    complete = sorted(xs) == list(range(len(xs)))
    if stacked and complete and len({x.shape for x in xs.values()}) == 1:
      out[f"{_BLOCKS}/{leaf}"] = np.stack([xs[i] for i in range(len(xs))])
    else:
      out.update({f"{_BLOCKS}_{i}/{leaf}": x for i, x in xs.items()})
  return out


def add_biases(flat: Mapping[str, np.ndarray]) -> Flat:
  """Adds zeros for the biases that query, key and value do not have."""
  absent = {
    name.replace("/kernel", "/bias"): x
    for name, x in flat.items()
    if _QKV.fullmatch(name)
  }
  zeros = {
    name: np.zeros(x.shape[1:], np.float32) for name, x in absent.items()
  }
  return {**zeros, **flat}


def drop_constants(flat: Mapping[str, np.ndarray], model) -> Flat:
  """Removes what layouts write and the model has without parameters.

  These are biases of zeros, see `add_biases`, that of a head without a bias,
  and a fixed position table.
  Arrays with other values stay, so that the comparison with the model reports
  them.
  """
  if not hasattr(model, "qkv_bias"):  # not a Vision Transformer
    return dict(flat)

  def is_constant(name, x):
    if name == "pos_embedding":
      return model.posemb == "sincos2d" and _is_fixed_table(x, model)
    if name == "head/bias":
      return not model.head_bias and not np.any(x)
    if not _QKV.fullmatch(name.replace("/bias", "/kernel")):
      return False
    is_absent = not model.qkv_bias or ("/key/" in name and not model.key_bias)
    return name.endswith("/bias") and is_absent and not np.any(x)

  return {name: x for name, x in flat.items() if not is_constant(name, x)}


def _is_fixed_table(table: np.ndarray, model) -> bool:
  prefix = sum(num_prefix(model).values()) if model.posemb_prefix else 0
  patches = table[:, prefix:]
  n, width = patches.shape[1:]
  return not np.any(table[:, :prefix]) and any(
    np.allclose(
      common.posemb_sincos_2d(h, n // h, width), patches, rtol=0, atol=1e-5
    )
    for h in range(1, n + 1)
    if n % h == 0
  )


def require_table(flat: Mapping[str, np.ndarray], model, layout: str) -> None:
  """Says what to do where there is no position table to write.

  Raises:
    ValueError: if there is none.
  """
  if "pos_embedding" in flat:
    return
  advice = "Use layout='big_vision'."
  if model.posemb == "sincos2d":
    advice = "It can be written if metadata say image_size, or "
    advice += "use layout='big_vision'."
  elif "rope" in model.posemb:
    advice = "Use layout='timm_eva', or 'big_vision'."
  raise ValueError(
    f"layout {layout!r} needs a position table; this model has "
    f"posemb={model.posemb!r}. {advice}"
  )


def num_prefix(model) -> dict[str, int]:
  """Parameter -> number of its tokens, in their order before the patches."""
  tokens = {
    "cls": int(getattr(model, "has_class_token", False)),
    "registers": getattr(model, "num_registers", 0),
  }
  return {name: n for name, n in tokens.items() if n}


def set_prefix_rows(
  flat: Flat, tokens: Mapping[str, int], *, old: bool, new: bool
) -> Flat:
  """Adds or removes the rows that a position table has for `tokens`.

  A row is a constant that is added to its token, so removing it adds it to
  the token, and adding one adds zeros: the model's outputs stay the same.

  Args:
    flat: has `pos_embedding` and an array for each of `tokens`.
    tokens: see `num_prefix`.
    old: whether the table has these rows.
    new: whether the result has them.
  """
  if old == new or "pos_embedding" not in flat or not tokens:
    return flat
  flat = dict(flat)
  table = np.asarray(flat["pos_embedding"], np.float32)
  if new:
    shape = (1, sum(tokens.values()), table.shape[-1])
    table = np.concatenate([np.zeros(shape, np.float32), table], axis=1)
  else:
    for name, n in tokens.items():
      if name in flat:
        flat[name] = np.asarray(flat[name], np.float32) + table[:, :n]
      table = table[:, n:]
  return {**flat, "pos_embedding": table}
