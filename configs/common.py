"""What config files share: their options, and where data sets have what."""

import difflib
import re

import ml_collections

VARIANT = re.compile(r"([A-Za-z]+[\w-]*?)/?(\d+)")


def parse_arg(arg: str | None, **defaults) -> ml_collections.ConfigDict:
  """Reads the options behind the colon of `--config=file.py:OPTIONS`.

  Options are separated by commas and written `name=value`. The first one
  may leave out its name, and a switch is set by its name alone:

    parse_arg("s16,res=256,smoke", variant="B/16", res=224, smoke=False)

  Args:
    arg: the options, or None.
    **defaults: name and default of each option; its type is the default's.

  Raises:
    ValueError: if an option is not known or its value has another type.
  """
  options = ml_collections.ConfigDict(defaults)
  first = next(iter(defaults))
  for i, item in enumerate(filter(None, (arg or "").split(","))):
    name, equals, value = item.partition("=")
    if not equals:
      if isinstance(defaults.get(name), bool):
        value = "true"
      elif i == 0:
        name, value = first, item
    if name not in defaults or not value:
      near = difflib.get_close_matches(name, defaults, 1)
      hint = f" Did you mean {near[0]!r}?" if near else ""
      known = ", ".join(f"{k}={v}" for k, v in defaults.items())
      raise ValueError(
        f"option {item!r} of the config is not known.{hint} Options and their "
        f"defaults: {known}."
      )
    kind = type(defaults[name])
    try:
      options[name] = (
        {"true": True, "false": False}[value.lower()]
        if (kind is bool)
        else kind(value)
      )
    except (ValueError, KeyError):
      raise ValueError(
        f"option {name}={value!r} of the config has to be of type "
        f"{kind.__name__}, such as {defaults[name]!r}."
      ) from None
  return options


def variant(text: str) -> str:
  """The published spelling of a variant: "s16" and "S/16" are "S/16"."""
  match = VARIANT.fullmatch(text)
  if not match:
    raise ValueError(
      f"variant {text!r} is not NAME/PATCH, such as s16, b32, so400m14 or h14."
    )
  name, patch = match.groups()
  special = {"mu": "mu", "so400m": "So400m", "ti": "Ti"}
  name = special.get(name.lower(), name)
  if len(name) == 1 and name in "smblh":
    name = name.upper()
  return f"{name}/{patch}"


def splits(data: str) -> tuple[str, str]:
  """The usual training and evaluation split of a data set."""
  if data.startswith("imagenet2012"):
    return "train[:99%]", "validation"
  if data.startswith("folder:"):
    return "train", "val"
  return "train", "test"


def set_steps(section: ml_collections.ConfigDict, name: str, steps: int):
  """Sets a duration in steps, whatever unit it had."""
  for key in [k for k in section if k.startswith(f"{name}_")]:
    del section[key]
  section[f"{name}_steps"] = steps


def make_smoke(config: ml_collections.ConfigDict) -> None:
  """Shrinks a recipe to a few steps of a tiny model on made-up images."""

  def smaller(pp):
    return re.sub(r"(crop|resize\w*)\(\d+\)", r"\1(64)", pp)

  set_steps(config, "total", 4)
  config.num_classes = 10
  config.input.data = "fake:40,72x96x3,10"
  config.input.split = "train"
  config.input.batch_size = 16
  config.input.pp = smaller(config.input.pp)
  config.model.variant = "mu/16"
  set_steps(config.schedule, "warmup", 2)
  for section in config.evals.values():
    section.split = "train"
    section.pp = smaller(section.pp)
    set_steps(section, "every", 2)
  set_steps(config.checkpoint, "every", 2)
  set_steps(config.report, "every", 1)
