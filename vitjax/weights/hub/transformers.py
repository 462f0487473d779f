"""Hugging Face transformers' config.json and preprocessor_config.json.

`FAMILIES` has an entry for each `model_type` that vitjax has the model of. The
defaults of fields are those of the library's configs.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from absl import logging

from vitjax.config import messages
from vitjax.weights.hub import images
from vitjax.weights.hub.fields import Fields

PROCESSOR = "preprocessor_config.json"

Options = dict[str, Any]

GELU = {
  "gelu": "erf",
  "gelu_new": "tanh",
  "gelu_pytorch_tanh": "tanh",
}

# Fields that do not change the outputs of a trained model.
_IRRELEVANT = {
  "_name_or_path",
  "attention_probs_dropout_prob",
  "classifier_dropout",
  "drop_path_rate",
  "dtype",
  "encoder_stride",
  "finetuning_task",
  "hidden_dropout_prob",
  "initializer_range",
  "label2id",
  "layer_scale_init_value",
  "num_labels",
  "num_layers",
  "num_stages",
  "out_features",
  "out_indices",
  "pooler_act",
  "pooler_output_size",
  "stage_names",
  "torch_dtype",
  "transformers_version",
}


class Family(NamedTuple):
  """A `model_type` of transformers.

  Attributes:
    prefix: beginning of the names of its classes, such as "ViT" of
      `ViTForImageClassification` and `ViTModel`.
    processor: its image processor, a key of `images.PROCESSORS`.
    model: the family of `vitjax.models`.
    options: reads the fields of config.json; returns the model's options.
    has_pooler: whether a model without classes may have a layer behind its
      class token.
  """

  prefix: str
  processor: str
  model: str
  options: Callable[[Fields], Options]
  has_pooler: bool = False


def _vit(fields: Fields) -> Options:
  return {
    "width": fields.get("hidden_size", 768),
    "depth": fields.get("num_hidden_layers", 12),
    "num_heads": fields.get("num_attention_heads", 12),
    "mlp_dim": fields.get("intermediate_size", 3072),
    "patch_size": fields.get("patch_size", 16),
    "gelu": fields.choose("hidden_act", GELU, "gelu"),
    "layer_norm_eps": fields.get("layer_norm_eps", 1e-12),
    "qkv_bias": fields.get("qkv_bias", True),
    "pool_type": "tok",
    "posemb_prefix": True,
  }


def _deit(fields: Fields) -> Options:
  """The token of distillation is a register: the classifier ignores it."""
  return {**_vit(fields), "num_registers": 1}


def _dinov2(fields: Fields) -> Options:
  """A classifier reads the class token beside the mean of the patches."""
  width = fields.get("hidden_size", 768)
  mlp_dim = int(width * fields.get("mlp_ratio", 4.0))
  swiglu = fields.get("use_swiglu_ffn", False)
  if swiglu:  # whose width is two thirds, rounded up to a multiple of 8
    mlp_dim = (int(mlp_dim * 2 / 3) + 7) // 8 * 8
  architecture = "".join(fields.get("architectures", ()))
  has_classes = architecture.endswith("ForImageClassification")
  return {
    "width": width,
    "depth": fields.get("num_hidden_layers", 12),
    "num_heads": fields.get("num_attention_heads", 12),
    "mlp_dim": mlp_dim,
    "swiglu": swiglu,
    "patch_size": fields.get("patch_size", 14),
    "gelu": fields.choose("hidden_act", GELU, "gelu"),
    "layer_norm_eps": fields.get("layer_norm_eps", 1e-6),
    "layer_scale_init": fields.get("layerscale_value", 1.0),
    "qkv_bias": fields.get("qkv_bias", True),
    "pool_type": "tok+gap" if has_classes else "tok",
    "posemb_prefix": True,
    "posemb_resize": "bicubic",
  }


def _dinov2_with_registers(fields: Fields) -> Options:
  return {
    **_dinov2(fields),
    "num_registers": fields.get("num_register_tokens", 4),
    "posemb_prefix": False,
    "posemb_resize": "antialias",
  }


def _dinov3_vit(fields: Fields) -> Options:
  for name in ("proj_bias", "mlp_bias"):
    fields.require(name, True)
  bias = fields.get("query_bias", True)
  fields.require("value_bias", bias)
  swiglu = fields.get("use_gated_mlp", False)
  gates = {"silu": "erf"}  # the GELU is not used beside a gate
  return {
    "width": fields.get("hidden_size", 384),
    "depth": fields.get("num_hidden_layers", 12),
    "num_heads": fields.get("num_attention_heads", 6),
    "mlp_dim": fields.get("intermediate_size", 1536),
    "swiglu": swiglu,
    "patch_size": fields.get("patch_size", 16),
    "gelu": fields.choose("hidden_act", gates if swiglu else GELU, "gelu"),
    "layer_norm_eps": fields.get("layer_norm_eps", 1e-5),
    "layer_scale_init": fields.get("layerscale_value", 1.0),
    "qkv_bias": bias,
    "key_bias": fields.get("key_bias", False),
    "class_token": True,
    "num_registers": fields.get("num_register_tokens", 0),
    "pool_type": "tok",
    "posemb": "rope",
    "rope_grid": "centered",
    "rope_base": fields.get("rope_theta", 100.0),
    "rope_shift": fields.get("pos_embed_shift", 0.0),
    "rope_jitter": fields.get("pos_embed_jitter", 1.0),
    "rope_rescale": (
      fields.get("pos_embed_rescale", 1.0)
      if "pos_embed_rescale" in fields.content
      else 2.0
    ),
  }


def _dinov3_convnext(fields: Fields) -> Options:
  return {
    "depths": fields.get("depths", (3, 3, 9, 3)),
    "widths": fields.get("hidden_sizes", (96, 192, 384, 768)),
    "layer_scale_init": fields.get("layer_scale_init_value", 1e-6),
    "layer_norm_eps": fields.get("layer_norm_eps", 1e-6),
    "gelu": fields.choose("hidden_act", GELU, "gelu"),
  }


def _convnext(fields: Fields) -> Options:
  # The epsilon of the last norm only, which sees values near 1.
  fields.require("layer_norm_eps", 1e-12, 1e-6)
  return {
    "depths": fields.get("depths", (3, 3, 9, 3)),
    "widths": fields.get("hidden_sizes", (96, 192, 384, 768)),
    "patch_size": fields.get("patch_size", 4),
    "gelu": fields.choose("hidden_act", GELU, "gelu"),
  }


def _swin(fields: Fields) -> Options:
  for name, value in (
    ("mlp_ratio", 4.0),
    ("qkv_bias", True),
    ("use_absolute_embeddings", False),
  ):
    fields.require(name, value)
  fields.get("hidden_size", 0)  # of the last stage
  return {
    "width": fields.get("embed_dim", 96),
    "depths": fields.get("depths", (2, 2, 6, 2)),
    "num_heads": fields.get("num_heads", (3, 6, 12, 24)),
    "window": fields.get("window_size", 7),
    "patch_size": fields.get("patch_size", 4),
    "gelu": fields.choose("hidden_act", GELU, "gelu"),
    "layer_norm_eps": fields.get("layer_norm_eps", 1e-5),
  }


def _swinv2(fields: Fields) -> Options:
  windows = fields.get("pretrained_window_sizes", (0, 0, 0, 0))
  options = {**_swin(fields), "version": 2}
  return {**options, "trained_windows": windows} if any(windows) else options


def _resnet(fields: Fields) -> Options:
  for name, value in (
    ("layer_type", "bottleneck"),
    ("hidden_act", "relu"),
    ("downsample_in_first_stage", False),
    ("downsample_in_bottleneck", False),
  ):
    fields.require(name, value)
  widths = fields.get("hidden_sizes", (256, 512, 1024, 2048))
  return {
    "depths": fields.get("depths", (3, 4, 6, 3)),
    "widths": tuple(width // 4 for width in widths),
    "stem_widths": (fields.get("embedding_size", 64),),
  }


def _regnet(fields: Fields) -> Options:
  for name, value in (
    ("layer_type", "y"),
    ("hidden_act", "relu"),
    ("downsample_in_first_stage", True),
  ):
    fields.require(name, value)
  return {
    "depths": fields.get("depths", (2, 6, 12, 2)),
    "widths": fields.get("hidden_sizes", (128, 192, 512, 1088)),
    "group_width": fields.get("groups_width", 64),
    "stem_width": fields.get("embedding_size", 32),
  }


FAMILIES: Mapping[str, Family] = {
  "convnext": Family("ConvNext", "ConvNext", "convnext", _convnext),
  "deit": Family("DeiT", "DeiT", "vit", _deit, has_pooler=True),
  "dinov2": Family("Dinov2", "Bit", "vit", _dinov2),
  "dinov2_with_registers": Family(
    "Dinov2WithRegisters", "Bit", "vit", _dinov2_with_registers
  ),
  "dinov3_convnext": Family(
    "DINOv3ConvNext", "DINOv3ViT", "convnext", _dinov3_convnext
  ),
  "dinov3_vit": Family("DINOv3ViT", "DINOv3ViT", "vit", _dinov3_vit),
  "regnet": Family("RegNet", "ConvNext", "regnet", _regnet),
  "resnet": Family("ResNet", "ConvNext", "resnet_bn", _resnet),
  "swin": Family("Swin", "ViT", "swin", _swin),
  "swinv2": Family("Swinv2", "ViT", "swin", _swinv2),
  "vit": Family("ViT", "ViT", "vit", _vit, has_pooler=True),
}


def describe(
  fields: Fields,
  processor: Callable[[], Fields],
  names: Collection[str] | None = None,
) -> dict[str, Any]:
  """The metadata of a model, see `weights.description`.

  Args:
    fields: config.json.
    processor: reads preprocessor_config.json.
    names: names of the arrays in the file, if it has been read: only they say
      whether a model without classes has the layer behind its class token.

  Raises:
    ValueError: for what is not implemented; names it.
  """
  family = fields.choose("model_type", FAMILIES, None)
  classifier = f"{family.prefix}ForImageClassification"
  has_classes = fields.choose(
    "architectures",
    {(classifier,): True, (f"{family.prefix}Model",): False},
    None if "architectures" not in fields.content else (),
  )
  fields.require("num_channels", 3)
  fields.get("image_size", None)
  options = family.options(fields)
  labels = _labels(fields) if has_classes else None
  if labels is not None:
    options["num_classes"] = len(labels)
  elif family.has_pooler:
    has_pooler = names is None or any("pooler.dense" in name for name in names)
    options["rep_size"] = has_pooler
  loss = fields.choose(
    "problem_type",
    {
      None: "softmax_xent",
      "single_label_classification": "softmax_xent",
      "multi_label_classification": "sigmoid_xent",
    },
    None,
  )
  if rest := set(fields.unread()) - _IRRELEVANT:
    logging.warning(
      "%s: %s are not read here. If they change the model, its outputs differ.",
      fields.where,
      messages.shorten(sorted(rest)),
    )
  size, preprocess = images.from_processor(processor(), family.processor)
  return {
    "model": {"name": family.model, **options},
    "image_size": list(size),
    "channels": 3,
    "preprocess": preprocess,
    "class_names": _named(labels),
    "data": None,
    "loss": loss,
  }


def _labels(fields: Fields) -> list[str]:
  """Names of the classes by id; a config without them has two."""
  labels = fields.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
  known = {str(i): labels.get(str(i)) for i in range(len(labels))}
  if labels.keys() != known.keys() or not all(
    isinstance(x, str) for x in known.values()
  ):
    raise ValueError(
      f"{fields.where}: id2label should have a name for each number from 0 to "
      f"{len(labels) - 1}."
    )
  return list(known.values())


def _named(labels: list[str] | None) -> list[str] | None:
  """The names of classes, unless they are the library's placeholders."""
  if labels is None or labels == [f"LABEL_{i}" for i in range(len(labels))]:
    return None
  return labels
