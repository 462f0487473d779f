"""OpenCLIP's state dicts: CLIP, and SigLIP on timm's image tower.

OpenAI's own state dict has CLIP's names too. Where the text tower is a module
of its own, its names have `text.` in front; SigLIP's image tower has timm's
names below `visual.trunk.`. Our models are written as OpenCLIP's of that kind.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from vitjax.weights.layouts import timm_vit, torch_tensors, torch_towers
from vitjax.weights.layouts.torch_tensors import CONV, LINEAR, SAME, Flat, Row
from vitjax.weights.layouts.torch_towers import NUMBER, TABLE, VECTOR

NAME = "open_clip"

_TRUNK = "visual.trunk."
_ROOT = ("logit_scale", "logit_bias")
# Numbers that OpenAI stores with the parameters.
_NOT_READ = ("input_resolution", "context_length", "vocab_size")


def matches(names: Collection[str]) -> bool:
  """The image tower's projection or trunk, or the text tower's embedding."""
  text = {"token_embedding.weight", "text.token_embedding.weight"}
  return not text.isdisjoint(names) or any(
    name in ("visual.proj", "visual.class_embedding") or name.startswith(_TRUNK)
    for name in names
  )


def _blocks(theirs: str, tower) -> Iterator[Row]:
  for i in range(tower.depth):
    yield from torch_towers.block(
      f"{theirs}.{i}",
      f"{torch_towers.blocks(tower)}{i}",
      tower.num_heads,
      norms=("ln_1", "ln_2"),
      qkv=[f"attn.{x}" for x in "qkv"],
      out="attn.out_proj",
      mlp=("mlp.c_fc", "mlp.c_proj"),
    )


def _image(tower) -> Iterator[Row]:
  norm = torch_tensors.norm
  yield from torch_tensors.layer("visual.conv1", "embedding", CONV)
  yield "visual.class_embedding", "cls", VECTOR
  yield "visual.positional_embedding", "pos_embedding", TABLE
  yield from norm("visual.ln_pre", "pre_norm")
  yield from _blocks("visual.transformer.resblocks", tower)
  yield from norm("visual.ln_post", "Transformer/encoder_norm")
  yield "visual.proj", "head/kernel", SAME


def _text(tower) -> Iterator[Row]:
  yield "token_embedding.weight", "Embed_0/embedding", SAME
  yield "positional_embedding", "pos_embedding", TABLE
  yield from _blocks("transformer.resblocks", tower)
  yield from torch_tensors.norm("ln_final", "Encoder_0/encoder_norm")
  if tower.head_bias:
    yield from torch_tensors.layer("text_projection", "head", LINEAR)
  else:
    yield "text_projection", "head/kernel", SAME


def _rows(model) -> Iterator[Row]:
  yield from torch_towers.rows(model, _image, _text, NAME)
  yield "logit_scale", "t", NUMBER
  yield "logit_bias", "b", NUMBER


def _fused(model):
  for _, tower in torch_towers.towers(model):
    side = "" if torch_towers.is_text(tower) else "visual."
    for i in range(tower.depth):
      attention = f"{side}transformer.resblocks.{i}.attn"
      yield torch_towers.in_proj(attention, tower.width)


def to_vitjax(flat: Flat, model) -> Flat:
  """Splits queries, keys and values, renames and transposes."""
  torch_towers.check(flat, model)
  flat = {n: x for n, x in flat.items() if n not in _NOT_READ}
  trunk = {n: x for n, x in flat.items() if n.startswith(_TRUNK)}
  found = torch_towers.to_vitjax(
    {n.removeprefix("text."): x for n, x in flat.items() if n not in trunk},
    model,
    _rows(model),
    _fused(model),
  )
  for prefix, tower in torch_towers.towers(model) if trunk else ():
    if not torch_towers.is_text(tower):
      image = {n.removeprefix(_TRUNK): x for n, x in trunk.items()}
      image = timm_vit.to_vitjax(image, tower)
      found |= {f"{prefix}{name}": x for name, x in image.items()}
  return found


def from_vitjax(flat: Flat, model) -> Flat:
  """Inverse of `to_vitjax`.

  An image tower with attention pooling is timm's, as in OpenCLIP's SigLIP,
  where the names of the text tower have a prefix.

  Raises:
    ValueError: for towers that OpenCLIP does not have.
  """
  trunk: Flat = {}
  start = ""
  for prefix, tower in torch_towers.towers(model):
    if getattr(tower, "pool_type", None) == "map":
      start = "text."
      image = {n: x for n, x in flat.items() if n.startswith(prefix)}
      flat = {n: x for n, x in flat.items() if n not in image}
      trunk = timm_vit.from_vitjax(
        {n.removeprefix(prefix): x for n, x in image.items()}, tower
      )
  flat = torch_towers.from_vitjax(
    flat, model, _rows(model), NAME, _fused(model)
  )
  return {
    **{n if n in _ROOT else f"{start}{n}": x for n, x in flat.items()},
    **{f"{_TRUNK}{n}": x for n, x in trunk.items()},
  }


def facts(model, metadata: Mapping[str, Any]) -> dict:
  """OpenCLIP's `model_cfg` with which the outputs are the same.

  SigLIP's image tower is one of timm's models, whose name is not known here;
  "timm" has the arguments that make it equal.
  """
  config: dict[str, Any] = {}
  found: dict[str, Any] = {"open_clip": {"model_cfg": config}}
  for _, tower in torch_towers.towers(model):
    common: dict[str, Any] = {
      "width": tower.width,
      "layers": tower.depth,
      "mlp_ratio": timm_vit.mlp_ratio(tower.width, timm_vit.mlp_dim(tower)),
      "norm_kwargs": {"eps": tower.layer_norm_eps},
    }
    if tower.gelu == "tanh":
      common["act_kwargs"] = {"approximate": "tanh"}
    if torch_towers.is_text(tower):
      config["embed_dim"] = tower.num_classes
      config["text_cfg"] = {
        **common,
        "heads": tower.num_heads,
        "vocab_size": tower.vocab_size,
        "context_length": tower.max_len,
        "pool_type": {"eot": "argmax"}.get(tower.pool_type, tower.pool_type),
        "no_causal_mask": not tower.causal,
        "proj_bias": tower.head_bias,
      }
    elif tower.pool_type == "map":
      config["custom_text"] = True
      config["vision_cfg"] = {"timm_pool": "map", "timm_proj": "none"}
      found |= timm_vit.facts(tower, metadata)
    else:
      config["quick_gelu"] = tower.gelu == "quick"
      config["vision_cfg"] = {
        **common,
        "head_width": tower.width // tower.num_heads,
        "patch_size": tower.patch_size,
      }
    if not torch_towers.is_text(tower) and "image_size" in metadata:
      config["vision_cfg"]["image_size"] = metadata["image_size"][0]
  if getattr(model, "bias_init", None) is not None:
    config["init_logit_bias"] = model.bias_init
  return found
