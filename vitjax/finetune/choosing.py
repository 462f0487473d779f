"""Chooses the recipe of a run by `rules`, and says why in five lines.

Starts from `transfer.py` with weights, or from `small_vit.py` without. Time and
memory are measured on this device.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence

from absl import logging

from vitjax.config.schema import RunConfig
from vitjax.finetune import facts, measuring, rules
from vitjax.finetune.facts import Data, Device
from vitjax.finetune.measuring import Measured
from vitjax.finetune.recipe import Recipe
from vitjax.parallel.memory import OutOfMemoryError
from vitjax.weights import files, published

SCRATCH = "scratch"  # the value of --model without weights

# Share of the minutes that is planned; the rest is for what no step shows.
_PLANNED = 0.9
_START_SECONDS = 20.0  # of the program, the first batches, the export
_LEAST_STEPS = 50  # with fewer, nothing is learnt
_EVALS = 12  # of val: 10 in the run, one of the best, one for the report
_FORWARD = 1 / 3  # of the operations of a train step, for an image


@dataclasses.dataclass(frozen=True)
class Request:
  """What the user asked for.

  Attributes:
    data: data set, as in `config.input.data`.
    model: published name, run folder, file, a model's name if `weights` is
      given, or "scratch". None: chosen by the rules.
    weights: file of weights of `model`.
    minutes: length of the whole command.
    mirror: whether mirror images are taken for training. None: by the rules.
  """

  data: str
  model: str | None = None
  weights: str | None = None
  minutes: float = 30.0
  mirror: bool | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
  """The recipe of a run, and why.

  Attributes:
    recipe: all that decides the result.
    test: split for the last evaluation; None without one.
    why: five lines.
  """

  recipe: Recipe
  test: str | None
  why: tuple[str, ...]


def choose(
  request: Request,
  start: float,
  log: Callable[[str], None] = lambda line: None,
) -> Choice:
  """Looks at data and device, measures, and chooses.

  Args:
    request: what the user asked for.
    start: `time.monotonic()` when the command began.
    log: called with a line before anything that takes long.

  Raises:
    ValueError: if data, model or weights cannot be used, or the minutes are
      too short.
    OutOfMemoryError: if no part of a batch fits the memory of the device.
    OSError: if weights that were asked for cannot be had.
  """
  facts.check_characters(request.data)
  log("Looking at the data")
  data, device = facts.of_data(request.data), facts.of_device()
  weights, model, why_model = find_weights(request, device)
  is_pretrained = weights is not None
  base = base_recipe(data, weights, model, request.mirror)
  base = with_batch(base, data, device)
  wanted = rules.epochs(
    data, base.resolve().input.batch_size, is_pretrained=is_pretrained
  )
  sides: Sequence[int | None] = (None,)
  if weights is None or has_free_size(weights):
    sides = rules.sides(data, is_pretrained=is_pretrained)

  def attempt(side):
    log(f"Timing a few steps at {side or 'the size of the weights'}")
    recipe, measured = fit_memory(base.changed(res=side), device)
    needs = times(data, measured, time.monotonic() - start)
    return side, recipe, measured, needs, needs.epochs_in(request.minutes)

  side, recipe, measured, needs, fitting = attempt(sides[0])
  enough = rules.ENOUGH * wanted
  if side and fitting < enough and sides[1:]:
    # Compiling takes long, so other sizes are estimated and one is timed.
    def is_enough(other, side=side, needs=needs, measured=measured):
      expected = needs.at(other / side, measured.compile_seconds)
      return expected.epochs_in(request.minutes) >= enough

    side, recipe, measured, needs, fitting = attempt(
      next(filter(is_enough, sides[1:]), sides[-1])
    )
  steps = fitting * data.num_train / measured.batch_size
  if steps < _LEAST_STEPS:
    missing = (_LEAST_STEPS - steps) * measured.step_seconds
    minutes = math.ceil(request.minutes + missing / 60 / _PLANNED)
    raise ValueError(
      f"--minutes={request.minutes:g} leaves time for {max(0, steps):.0f} "
      f"steps: one takes {measured.step_seconds:.2g} s here, and all but "
      f"training {needs.other / 60:.1f} minutes. Use --minutes={minutes} or "
      "more, and better several times that."
    )
  epochs = min(wanted, fitting)
  recipe = recipe.changed(epochs=epochs)
  size = "x".join(map(str, measured.image_size))
  return Choice(
    recipe,
    data.test,
    (
      f"data: {data}",
      f"device: {device}",
      f"model: {why_model}; {measured.parameters:,} parameters, {size} pixels, "
      f"{say_side(side, sides)}",
      say_length(recipe, epochs, wanted, measured),
      say_care(data, recipe, measured),
    ),
  )


def read_published(name: str) -> None:
  """Downloads published weights and reads them, to see that a run can.

  Raises:
    OSError: if they are neither in the cache nor to be downloaded.
    ValueError: if the file is damaged.
    ImportError: if reading it needs a package that is not installed.
  """
  files.read(published.find(name))


def find_weights(
  request: Request,
  device: Device,
  read: Callable[[str], None] = read_published,
) -> tuple[str | None, str | None, str]:
  """(weights, the model's name if they do not say, why).

  Without --model it is the first of `rules.published` that can be read; if none
  can, training is from scratch.

  Args:
    request: what the user asked for.
    device: the devices.
    read: see `read_published`.

  Raises:
    ValueError: if the file of weights does not exist.
  """
  if request.model == SCRATCH:
    return None, None, "a small ResNet from scratch, as asked for"
  if request.weights is not None:
    if not os.path.exists(request.weights):
      raise ValueError(f"--weights={request.weights}: there is no such file.")
    return request.weights, request.model, f"the weights {request.weights}"
  if request.model is not None:
    return request.model, None, f"{request.model}, as asked for"
  names = rules.published(device)
  for name in names:
    try:
      read(name)
    except (OSError, ValueError, ImportError) as e:
      logging.info("%s", e)
    else:
      return name, None, f"{name}, which is pre-trained"
  return (
    None,
    None,
    (
      f"a small ResNet from scratch, as {' and '.join(names)} can be neither "
      "found nor downloaded"
    ),
  )


def has_free_size(weights: str) -> bool:
  """Whether the weights take images of any size.

  Those of a run keep its size, which its preprocessing names.
  """
  stem, _ = os.path.splitext(weights)
  if os.path.isdir(weights) or os.path.isfile(f"{stem}.json"):
    return False
  try:
    return published.family(weights) != "mixer"
  except KeyError:
    return True


def base_recipe(
  data: Data, weights: str | None, model: str | None, mirror: bool | None
) -> Recipe:
  """The recipe without what depends on the device."""
  flip = rules.mirrors(data) if mirror is None else mirror
  options = {"train": data.train, "val": data.val, "flip": flip}
  if weights is None:
    recipe = Recipe(
      "small_vit.py", {"data": data.data, "model": "resnet", **options}
    )
  else:
    names = {"weights": weights, "dataset": data.data, "model": model}
    recipe = Recipe("transfer.py", {}).changed(**names, **options)
  return recipe.changed(
    {
      "checkpoint.best_metric": f"val/{rules.metric(data)}",
      "input.sampling": rules.sampling(data),
    }
  )


def with_batch(recipe: Recipe, data: Data, device: Device) -> Recipe:
  """The recipe with the batch of the rules, and a rate that fits it."""
  own = recipe.resolve()
  batch = rules.batch_size(data, device)
  if batch == own.input.batch_size:
    return recipe.changed(batch=batch)
  factor = rules.rate_factor(
    batch, own.input.batch_size, is_adam=own.optim["name"] != "sgd"
  )
  rate = float(f"{own.optim['learning_rate'] * factor:.2g}")
  return recipe.changed({"optim.learning_rate": rate}, batch=batch)


def fit_memory(
  recipe: Recipe,
  device: Device,
  measure: Callable[[RunConfig], Measured] = measuring.measure,
) -> tuple[Recipe, Measured]:
  """The recipe with the fewest parts of a batch that fit, and its time.

  Args:
    recipe: a recipe with a batch size.
    device: the devices.
    measure: see `measuring.measure`.

  Raises:
    OutOfMemoryError: if a batch in the most parts does not fit.
  """
  batch, parts = recipe.options["batch"], 1
  while True:
    # Longer than what is timed, whatever the number of images.
    tried = recipe.changed(
      {"accumulation_steps": parts if parts > 1 else None}, epochs=1000
    )
    try:
      return tried, measure(tried.resolve())
    except OutOfMemoryError:
      parts *= 2
      if batch % (parts * device.count):
        raise


@dataclasses.dataclass(frozen=True)
class Times:
  """Estimated seconds of the command on this device.

  Attributes:
    epoch: an epoch.
    other: all but training.
  """

  epoch: float
  other: float

  def at(self, scale: float, compile_seconds: float) -> "Times":
    """The times with images whose sides are `scale` times as long.

    Time goes with the number of pixels, and the step is compiled again.
    """
    return Times(self.epoch * scale**2, self.other + compile_seconds)

  def epochs_in(self, minutes: float) -> float:
    """Epochs that end in time, whole ones or hundredths of one.

    Negative if all but training takes longer.
    """
    epochs = (60 * minutes * _PLANNED - self.other) / self.epoch
    return math.floor(epochs) if epochs >= 1 else math.floor(100 * epochs) / 100


def times(data: Data, measured: Measured, spent: float) -> Times:
  """The times of a run.

  Args:
    data: the data set.
    measured: what a few steps showed.
    spent: seconds since the command began.
  """
  image = measured.step_seconds / measured.batch_size
  evaluated = _EVALS * data.num_val + data.num_test
  return Times(
    epoch=image * data.num_train,
    other=spent
    + measured.compile_seconds
    + _START_SECONDS
    + image * _FORWARD * evaluated,
  )


def say_side(side: int | None, sides: Sequence[int | None]) -> str:
  """Why the images have this size."""
  if side is None:
    return "the size of the weights"
  if side == sides[0]:
    return "the first of the sizes for these images"
  return f"{sides[0]} pixels leave too few epochs"


def say_length(
  recipe: Recipe, epochs: float, wanted: int, measured: Measured
) -> str:
  """The length of training, and why."""
  run = recipe.resolve()
  reason = (
    "as many as the rules want"
    if epochs >= wanted
    else f"of {wanted} wanted, as the minutes allow"
  )
  return (
    f"length: {epochs:g} epochs, {reason}, in batches of {measured.batch_size} "
    f"at {measured.step_seconds:.3g} s a step; {run.optim['name']} with a rate "
    f"of {run.optim['learning_rate']:g}"
  )


def say_care(data: Data, recipe: Recipe, measured: Measured) -> str:
  """Augmentation, balance and memory, and why."""
  flip = "mirror images" if recipe.options["flip"] else "no mirror images"
  if recipe.overrides.get("input.sampling"):
    balance = (
      f"classes shown alike, as the largest has {data.imbalance:.1f} "
      "times the images of the smallest"
    )
  else:
    even = f"no class has {rules.RARE:g} times the images of another"
    balance = "images shown alike, as "
    balance += even if data.counts else "counts are unknown"
  used = measured.memory.used_bytes
  limit = measured.memory.limit_bytes
  memory = "memory unknown"
  if used is not None and limit is not None:
    memory = f"{used / 2**30:.1f} of {limit / 2**30:.0f} GiB of memory"
  parts = measured.memory.accumulation_steps
  split = f", the batch in {parts} parts" if parts > 1 else ""
  metric = recipe.overrides["checkpoint.best_metric"]
  return f"care: {flip}; {balance}; best by {metric}; {memory}{split}"
