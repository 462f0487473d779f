"""What the layouts of two towers in PyTorch share.

Both code bases that publish such files, OpenCLIP and transformers, have a ViT
and a text transformer. A table of theirs has our names, below `img/` and `txt/`
for two towers. One tower of a file, such as "clip.safetensors:img", keeps its
names and is read into a model of one tower.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vitjax.weights.layouts import torch_tensors, tower_names, vit_names
from vitjax.weights.layouts.torch_tensors import Flat, Fused, Kind, Row

# Vectors and tables of theirs have no axis of examples, numbers no axis at all.
VECTOR = Kind(lambda x: x.reshape(1, 1, -1), lambda x: x.reshape(-1))
TABLE = Kind(lambda x: x[None], lambda x: x[0])
NUMBER = Kind(lambda x: x.reshape(1), lambda x: x.reshape(()))

# PyTorch's attention has one weight for query, key and value, named with an
# underscore.
# Names of the arrays of each tower of a file, in both code bases.
_TOWERS = {
  "img": re.compile(r"visual\.|vision_model\.|visual_projection\."),
  "txt": re.compile(
    r"text\.|transformer\.|(token_embedding|ln_final)\.|positional_embedding"
    r"|text_model\.|text_projection"
  ),
}
_THEIRS = re.compile(r"\.in_proj_(weight|bias)$")
_OURS = re.compile(r"\.in_proj\.(weight|bias)$")

TEXT = "text"  # family of a text tower
Rows = Callable[[Any], Iterable[Row]]


def tower_of(flat: Flat, name: str) -> Flat:
  """The arrays of the tower "img" or "txt" of a file, with their names."""
  pattern = _TOWERS.get(name)
  return {n: x for n, x in flat.items() if pattern and pattern.match(n)}


def check(flat: Flat, model) -> None:
  """Raises ValueError for one tower if the file has two."""
  if all(tower_of(flat, name) for name in _TOWERS):
    tower_names.models(model)


def is_text(tower) -> bool:
  """Whether a tower reads texts."""
  return type(tower).__module__ == f"vitjax.models.{TEXT}"


def towers(model) -> Iterator[tuple[str, Any]]:
  """(prefix of our names, tower) of each tower, or of a tower alone."""
  found = model.towers() or {"": model}
  for name, tower in found.items():
    yield f"{name}/" if name else "", tower


def rows(model, image: Rows, text: Rows, layout: str) -> Iterator[Row]:
  """Rows of all towers by the tables of theirs; checks their families."""
  for prefix, tower in towers(model):
    family, table = (TEXT, text) if is_text(tower) else ("vit", image)
    torch_tensors.require(tower, family, layout)
    for theirs, ours, kind in table(tower):
      yield theirs, f"{prefix}{ours}", kind


def blocks(tower) -> str:
  """Our name of the blocks of a tower, without their number."""
  encoder = "Encoder_0" if is_text(tower) else "Transformer"
  return f"{encoder}/encoderblock_"


def block(
  theirs: str, ours: str, num_heads: int, norms, qkv, out, mlp
) -> Iterator[Row]:
  """Rows of a block, by their names within it."""
  for i in (0, 1):
    yield from torch_tensors.norm(
      f"{theirs}.{norms[i]}", f"{ours}/LayerNorm_{i}"
    )
    yield from torch_tensors.layer(
      f"{theirs}.{mlp[i]}",
      f"{ours}/MlpBlock_0/Dense_{i}",
      torch_tensors.LINEAR,
    )
  yield from torch_tensors.attention(
    [f"{theirs}.{x}" for x in qkv],
    f"{theirs}.{out}",
    f"{ours}/MultiHeadDotProductAttention_0",
    num_heads,
  )


def in_proj(attention: str, width: int) -> Fused:
  """PyTorch's attention of that name, whose parts are called q, k and v."""
  return Fused(
    f"{attention}.in_proj", {f"{attention}.{x}": width for x in "qkv"}
  )


def to_vitjax(
  flat: Flat, model, table: Iterable[Row], fused: Iterable[Fused] = ()
) -> Flat:
  """Renames and transforms by `table`, and stacks blocks as the model does."""
  flat = {_THEIRS.sub(r".in_proj.\1", name): x for name, x in flat.items()}
  flat = torch_tensors.split_fused(flat, fused)
  flat = torch_tensors.to_vitjax(flat, table)
  return _by_tower(flat, model, _fit)


def from_vitjax(
  flat: Flat,
  model,
  table: Iterable[Row],
  layout: str,
  fused: Iterable[Fused] = (),
) -> Flat:
  """Inverse of `to_vitjax`."""
  flat = _by_tower(flat, model, _publish)
  flat = torch_tensors.from_vitjax(flat, table, layout)
  flat = torch_tensors.join_fused(flat, fused)
  return {_OURS.sub(r".in_proj_\1", name): x for name, x in flat.items()}


def _by_tower(flat: Flat, model, change) -> Flat:
  """The arrays after `change(arrays, tower)` of those of each tower."""
  if not model.towers():
    return change(flat, model)
  image, text, rest = tower_names.split(flat)
  of_image, of_text = tower_names.models(model)
  return tower_names.join(change(image, of_image), change(text, of_text), rest)


def _fit(flat: Flat, tower) -> Flat:
  if is_text(tower):
    return tower_names.text_to_vitjax(flat, tower)
  prefix = vit_names.num_prefix(tower)
  flat = vit_names.set_prefix_rows(
    flat, prefix, old="cls" in flat, new=tower.posemb_prefix
  )
  return vit_names.stack_blocks(flat, tower.scan_layers)


def _publish(flat: Flat, tower) -> Flat:
  if is_text(tower):
    return tower_names.text_as_loop(flat)
  flat = vit_names.stack_blocks(flat, stacked=False)
  prefix = vit_names.num_prefix(tower)
  return vit_names.set_prefix_rows(
    flat, prefix, old=tower.posemb_prefix, new=True
  )
