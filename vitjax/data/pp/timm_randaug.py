"""timm's RandAugment, configured by strings such as `rand-m9-mstd0.5-inc1`.

DeiT, ConvNeXt and timm's own recipes use this form. It differs from `randaug`
(https://arxiv.org/abs/1909.13719):

* Each drawn op is applied with probability 1/2 only.
* Magnitudes vary from op to op, by normal noise or uniformly.
* With `inc1`, the effect of every op grows with the magnitude, and colours may
  get stronger or weaker. Without `inc1`, as in `randaug`, Posterize and
  Solarize change less at higher magnitudes.
* There is no Cutout; `config.mixing.erase_prob` takes its place.
* Warps interpolate, and translations are a fraction of the image's side.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vitjax.data.pp import pillow
from vitjax.data.pp.kinds import ChunkOp, random_image_op

_MAX_LEVEL = 10
_ROTATE = 30  # degrees
_SHEAR = 0.3
_TRANSLATE = 0.45
# A standard deviation above this means uniform magnitudes.
_UNIFORM = 100
_FIELDS = {
  "m": int,
  "n": int,
  "p": float,
  "mstd": float,
  "mmax": int,
  "inc": int,
}
# ImageNet's mean colour.
_FILL = (124, 116, 104)

# Maps a magnitude, scaled so that 10 is 1, to the argument of an op.
_Argument = Callable[[float, np.random.Generator], Any]


def timm_randaug(
  config: str = "rand-m9-mstd0.5-inc1",
  *,
  method: str = "random",
  fill: int | Sequence[int] = _FILL,
  key: str = "image",
) -> ChunkOp:
  """timm's RandAugment, configured by its string.

  The string is `rand` and, in any order, after dashes:

  - `m`: magnitude of the changes, default 10.
  - `n`: number of changes drawn per image, with replacement, default 2.
  - `p`: probability of applying a drawn change, default 0.5.
  - `mstd`: standard deviation of the magnitude, default 0. Above 100: the
    magnitude is uniform in 0..m.
  - `mmax`: largest magnitude, default 10.
  - `inc`: 1 if every change grows with the magnitude, default 0.

  Args:
    config: timm's string, see above.
    method: interpolation of rotations, shears and translations: "bilinear",
      "bicubic", or "random" for either, which is timm's default. DeiT and
      ConvNeXt use "bicubic".
    fill: value, 0..255, of pixels that come from outside of the image; one
      number, or one for each of three channels (grey images take the mean).
    key: feature with the image: uint8, all of one size, 1 or 3 channels.
      Changes of colour leave grey images alone.
  """
  options = _parse(config)
  methods = pillow.METHODS if method == "random" else (method,)
  if not set(methods) <= set(pillow.METHODS):
    names = ", ".join((*pillow.METHODS, "random"))
    raise ValueError(f"method {method!r} is none of {names}")
  fill = (fill,) * 3 if isinstance(fill, int) else tuple(fill)
  if len(fill) != 3:
    raise ValueError(f"fill must be one number or three, not {fill}")
  grey = round(sum(fill) / 3)
  arguments = _INCREASING if options["inc"] else _PLAIN
  names = tuple(arguments)

  def augment(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    for chosen in random.integers(len(names), size=options["n"]):
      if random.random() >= options["p"]:
        continue
      name = names[chosen]
      argument = arguments[name](_level(options, random), random)
      if name in _WARPS:
        image = _WARPS[name](
          image,
          argument,
          methods[random.integers(len(methods))],
          fill if image.ndim == 3 else grey,
        )
      else:
        image = _COLOURS[name](image, argument)
    return image

  return random_image_op("timm_randaug", augment, key=key)


def _parse(config: str) -> dict[str, Any]:
  options: dict[str, Any] = {
    "m": 10,
    "n": 2,
    "p": 0.5,
    "mstd": 0.0,
    "mmax": 10,
    "inc": 0,
  }
  kind, *fields = config.split("-")
  for field in fields:
    match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d*)?)", field)
    name, value = match.groups() if match else ("", "")
    if name not in _FIELDS or (_FIELDS[name] is int and "." in value):
      raise ValueError(_explain(config, field))
    options[name] = _FIELDS[name](value)
  if kind != "rand" or options["p"] > 1 or options["inc"] > 1:
    raise ValueError(_explain(config, config))
  return options


def _explain(config: str, field: str) -> str:
  return (
    f"{field!r} in {config!r} is not understood: a config is 'rand', then "
    "m<int>, n<int>, p<0..1>, mstd<float>, mmax<int> or inc<0|1> after dashes. "
    "Sets of ops with weights (t, w) are not supported"
  )


def _level(options: dict[str, float], random: np.random.Generator) -> float:
  """A magnitude as a share of the scale."""
  level = options["m"]
  if options["mstd"] > _UNIFORM:
    level = random.uniform(0, level)
  elif options["mstd"]:
    level = random.normal(level, options["mstd"])
  return min(max(level, 0), options["mmax"]) / _MAX_LEVEL


def _signed(value: float, random: np.random.Generator) -> float:
  return -value if random.random() < 0.5 else value


def _none(level, random) -> None:
  return None


def _factor(level, random) -> float:
  return level * 1.8 + 0.1


def _factor_either_side(level, random) -> float:
  return max(0.1, 1 + _signed(level * 0.9, random))


def _bits(level, random) -> int:
  return int(level * 4)


def _threshold(level, random) -> int:
  return min(256, int(level * 256))


_PLAIN: dict[str, _Argument] = {
  "AutoContrast": _none,
  "Equalize": _none,
  "Invert": _none,
  "Rotate": lambda level, random: _signed(level * _ROTATE, random),
  "Posterize": _bits,
  "Solarize": _threshold,
  "SolarizeAdd": lambda level, random: min(128, int(level * 110)),
  "Color": _factor,
  "Contrast": _factor,
  "Brightness": _factor,
  "Sharpness": _factor,
  "ShearX": lambda level, random: _signed(level * _SHEAR, random),
  "ShearY": lambda level, random: _signed(level * _SHEAR, random),
  "TranslateX": lambda level, random: _signed(level * _TRANSLATE, random),
  "TranslateY": lambda level, random: _signed(level * _TRANSLATE, random),
}
_INCREASING: dict[str, _Argument] = _PLAIN | {
  "Posterize": lambda level, random: 4 - _bits(level, random),
  "Solarize": lambda level, random: 256 - _threshold(level, random),
  "Color": _factor_either_side,
  "Contrast": _factor_either_side,
  "Brightness": _factor_either_side,
  "Sharpness": _factor_either_side,
}

# Image and argument to image.
_COLOURS: dict[str, Callable[[np.ndarray, Any], np.ndarray]] = {
  "AutoContrast": lambda image, _: pillow.autocontrast(image),
  "Equalize": lambda image, _: pillow.equalize(image),
  "Invert": lambda image, _: pillow.invert(image),
  "Posterize": pillow.posterize,
  "Solarize": pillow.solarize,
  "SolarizeAdd": pillow.solarize_add,
  "Color": pillow.color,
  "Contrast": pillow.contrast,
  "Brightness": pillow.brightness,
  "Sharpness": pillow.sharpness,
}


def _shear_x(image, factor, method, fill) -> np.ndarray:
  return pillow.affine(image, ((1, factor, 0), (0, 1, 0)), method, fill)


def _shear_y(image, factor, method, fill) -> np.ndarray:
  return pillow.affine(image, ((1, 0, 0), (factor, 1, 0)), method, fill)


def _translate_x(image, share, method, fill) -> np.ndarray:
  return pillow.translate(image, share * image.shape[1], 1, method, fill)


def _translate_y(image, share, method, fill) -> np.ndarray:
  return pillow.translate(image, share * image.shape[0], 0, method, fill)


# Image, argument, interpolation and fill to image.
_WARPS = {
  "Rotate": pillow.rotate,
  "ShearX": _shear_x,
  "ShearY": _shear_y,
  "TranslateX": _translate_x,
  "TranslateY": _translate_y,
}

OPS = {"timm_randaug": timm_randaug}
