"""How a repository says that images are prepared, as ops of `vitjax.data.pp`.

timm has it in `pretrained_cfg`, transformers in preprocessor_config.json, and
OpenCLIP in `preprocess_cfg`.
"""

import ast
import math
from typing import Any, NamedTuple

from vitjax.weights.hub.fields import Fields
from vitjax.weights.zoo import entry

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (
  (0.48145466, 0.4578275, 0.40821073),
  (0.26862954, 0.26130258, 0.27577711),
)
_HALF = (0.5,) * 3, (0.5,) * 3
_OPS: dict[Any, str] = {
  _HALF: entry.NORMALISATIONS["inception"],
  _IMAGENET: entry.NORMALISATIONS["imagenet"],
}

_HEIGHT_WIDTH = ("height", "width")

# Numbers of Pillow's interpolations.
_RESAMPLE = {2: "bilinear", 3: "bicubic"}


class Images(NamedTuple):
  """What a model takes.

  Attributes:
    size: (height, width) in pixels.
    preprocess: the ops from the bytes of an image to what the model takes.
  """

  size: tuple[int, int]
  preprocess: str


class _Processor(NamedTuple):
  """Defaults of an image processor of transformers.

  Attributes:
    size: side of the images in pixels, before a crop.
    resample: number of the interpolation.
    statistics: mean and standard deviation.
    shortest: whether a size that is one number is that of the shorter side.
    crop: side of the central crop, if there is one by default.
  """

  size: int
  resample: int
  statistics: tuple[tuple[float, ...], tuple[float, ...]]
  shortest: bool = False
  crop: int | None = None


# Without "ImageProcessor", its "Fast" and the older "FeatureExtractor".
PROCESSORS = {
  "Bit": _Processor(224, 3, _CLIP, shortest=True, crop=224),
  "CLIP": _Processor(224, 3, _CLIP, shortest=True, crop=224),
  "ConvNext": _Processor(384, 3, _HALF, shortest=True),
  "DINOv3ViT": _Processor(224, 2, _IMAGENET),
  "DeiT": _Processor(256, 3, _HALF, crop=224),
  "Siglip": _Processor(224, 3, _HALF),
  "Siglip2": _Processor(16, 2, _HALF),  # patches
  "ViT": _Processor(224, 2, _HALF),
}
# Models that are cropped from a larger image unless they are this large.
_CONVNEXT_CROP, _CONVNEXT_SQUEEZED = 224 / 256, 384


def from_timm(fields: Fields) -> Images:
  """The evaluation of timm for a `pretrained_cfg`.

  Raises:
    ValueError: for a value that is not implemented; names it.
  """
  _, height, width = fields.get("input_size", (3, 224, 224))
  method = fields.choose(
    "interpolation", {x: x for x in _RESAMPLE.values()}, "bicubic"
  )
  modes = {"center": True, "squash": False}
  keep_aspect = fields.choose("crop_mode", modes, "center")
  crop = fields.get("crop_pct", 0.875)
  normalise = _normalise(
    fields.get("mean", _IMAGENET[0]), fields.get("std", _IMAGENET[1])
  )
  sides = math.floor(height / crop), math.floor(width / crop)
  if height != width and keep_aspect:
    raise ValueError(
      f"{fields.where}: crop_mode='center' of images of {height}x{width} is "
      "not implemented here; square images are, and crop_mode='squash'."
    )
  resize = sides[0] if height == width else sides
  crop_to = height if height == width else (height, width)
  if not keep_aspect and resize == crop_to:
    crop_to = None
  return Images(
    (height, width), _ops(keep_aspect, resize, method, crop_to, normalise)
  )


def from_processor(fields: Fields, default: str) -> Images:
  """The evaluation of an image processor of transformers.

  Args:
    fields: preprocessor_config.json.
    default: the processor of this model, where the file does not name one.

  Raises:
    ValueError: for a value that is not implemented; names it.
  """
  kind = fields.get("image_processor_type", "") or fields.get(
    "feature_extractor_type", f"{default}ImageProcessor"
  )
  for suffix in ("Fast", "ImageProcessor", "FeatureExtractor"):
    kind = kind.removesuffix(suffix)
  if kind not in PROCESSORS:
    raise ValueError(
      f"{fields.where}: the image processor {kind!r} is not known. Known: "
      f"{', '.join(PROCESSORS)}."
    )
  known = PROCESSORS[kind]
  for name in ("do_resize", "do_rescale", "do_normalize"):
    fields.require(name, True)
  if not math.isclose(fields.get("rescale_factor", 1 / 255), 1 / 255):
    fields.require("rescale_factor", 1 / 255)
  method = fields.choose("resample", _RESAMPLE, known.resample)
  mean, std = (
    fields.get(name, default)
    for name, default in zip(("image_mean", "image_std"), known.statistics)
  )
  if kind == "Siglip2":
    fields.require("resample", known.resample)
    side = fields.get("patch_size", known.size)
    patches = fields.get("max_num_patches", 256)
    op = f"naflex({patches}, {side})"
    return Images(
      ((1 + patches) * side, side), f"decode|{op}|{_normalise(mean, std)}"
    )
  size, is_shortest = _size(fields, known)
  crop = None
  if kind == "ConvNext":
    share = fields.get("crop_pct", _CONVNEXT_CROP)
    is_shortest = size[0] < _CONVNEXT_SQUEEZED
    if is_shortest:
      crop, size = size, (int(size[0] / share),) * 2
  elif fields.get("do_center_crop", known.crop is not None):
    crop = _pair(fields, "crop_size", known.crop or size[0])
  elif is_shortest:
    raise ValueError(
      f"{fields.where}: images without a crop have different shapes, and that "
      "is not implemented here."
    )
  resize = size[0] if size[0] == size[1] else size
  crop_to = crop and (crop[0] if crop[0] == crop[1] else crop)
  if not is_shortest and crop == size:
    crop_to = None
  return Images(
    crop or size,
    _ops(is_shortest, resize, method, crop_to, _normalise(mean, std)),
  )


def from_open_clip(fields: Fields, size: int) -> str:
  """The evaluation of OpenCLIP for a `preprocess_cfg`, as ops.

  Raises:
    ValueError: for a value that is not implemented; names it.
  """
  keep_aspect = fields.choose(
    "resize_mode", {"shortest": True, "squash": False}, "shortest"
  )
  methods = {x: x for x in _RESAMPLE.values()} | {"random": "bicubic"}
  method = fields.choose("interpolation", methods, "bicubic")
  normalise = _normalise(
    fields.get("mean", _CLIP[0]), fields.get("std", _CLIP[1])
  )
  crop = size if keep_aspect else None
  return _ops(keep_aspect, size, method, crop, normalise)


def _size(fields: Fields, known: _Processor) -> tuple[tuple[int, int], bool]:
  """The size to resize to, and whether it is that of the shorter side."""
  size = fields.content.get("size")
  if isinstance(size, dict) and "shortest_edge" in size:
    return _pair(fields, "size", known.size, "shortest_edge"), True
  is_number = size is None or type(size) is int
  return _pair(fields, "size", known.size), is_number and known.shortest


def _pair(
  fields: Fields, name: str, default: int, key: str | None = None
) -> tuple[int, int]:
  """(height, width) of a field: one number, or an object of them."""
  value: Any = fields.get(name, None) or default
  if isinstance(value, dict):
    sides: list[Any] = [
      value.get(x) for x in ((key, key) if key else _HEIGHT_WIDTH)
    ]
  else:
    sides = [value, value]
  if not all(type(x) is int and 0 < x < 1 << 14 for x in sides):
    raise ValueError(
      f"{fields.where}: {name}={fields.content.get(name)!r} should be a number "
      "of pixels, or an object with height and width or with shortest_edge."
    )
  height, width = sides
  return height, width


def _normalise(mean: Any, std: Any) -> str:
  """The op that normalises images."""
  mean, std = tuple(map(float, mean)), tuple(map(float, std))
  if (mean, std) == ((0.0,) * 3, (1.0,) * 3):
    return "value_range(0, 1)"
  return _OPS.get((mean, std), f"normalize({mean}, {std})")


def _ops(keep_aspect: bool, resize, method: str, crop, normalise: str) -> str:
  op = "resize_small" if keep_aspect else "resize"
  bicubic = ', "bicubic"' if method == "bicubic" else ""
  cropped = f"|central_crop({crop})" if crop else ""
  return f"decode|{op}({resize}{bicubic}, antialias=True){cropped}|{normalise}"


def to_timm(preprocess: str, side: int) -> tuple[dict[str, Any], str]:
  """Fields of timm's `pretrained_cfg`, and how its images differ, if they do.

  Args:
    preprocess: the ops of `Images`.
    side: side of the images in pixels.
  """
  fields: dict[str, Any] = {
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "squash",
    "mean": [0.0] * 3,
    "std": [1.0] * 3,
  }
  remark = "timm resizes images, and this model was evaluated without."
  for name, args, options in map(_parse, preprocess.split("|")):
    if name in ("resize", "resize_small"):
      sides = args[0] if isinstance(args[0], tuple) else (args[0],)
      fields["interpolation"] = options.get("method", [*args, "bilinear"][1])
      fields["crop_pct"] = side / sides[0]
      fields["crop_mode"] = "squash" if name == "resize" else "center"
      remark = ""
      if not options.get("antialias"):
        remark = (
          "timm averages over pixels when it makes images smaller, and this "
          "model was evaluated without that."
        )
    elif name == "normalize":
      mean, std = [*args, *_IMAGENET[len(args) :]]
      fields |= {"mean": list(mean), "std": list(std)}
    elif name == "value_range":
      low, high = args or (0, 1)
      mean, std = -low / (high - low), 1 / (high - low)
      fields |= {"mean": [mean] * 3, "std": [std] * 3}
    elif name not in ("decode", "central_crop"):
      remark = f"timm prepares images without the op {name!r} of this model."
  return fields, remark


def _parse(op: str) -> tuple[str, list[Any], dict[str, Any]]:
  """Name, arguments and options of an op."""
  node = ast.parse(op.strip(), mode="eval").body
  if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
    args = [ast.literal_eval(x) for x in node.args]
    options = {x.arg: ast.literal_eval(x.value) for x in node.keywords}
    return node.func.id, args, {k: x for k, x in options.items() if k}
  return op.strip(), [], {}
