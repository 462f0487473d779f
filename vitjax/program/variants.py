"""Variants of the train step: static options that change from step to step.

FlexiViT draws a patch size for each step, progressive resizing enlarges the
images during training. Both choose the variant of a step by a pure function of
(config, step), so a resumed run takes the same steps. Each variant is a
compiled program of its own, on the same state.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from vitjax.config.schema import ConfigError, RunConfig
from vitjax.data import seeds
from vitjax.models import batch_norm, flexible

# The use of the run's seed, which must not share numbers with another one.
_USE = "patch_sizes"


@dataclasses.dataclass(frozen=True)
class Variant:
  """Static options of a train step.

  Attributes:
    patch_size: patch size of the model; None: its own.
    image_size: shorter side to which images are resized; None: as they are.
  """

  patch_size: int | None = None
  image_size: int | None = None

  def __str__(self):
    names = {"patch size": self.patch_size, "image size": self.image_size}
    return ", ".join(f"{k} {v}" for k, v in names.items() if v is not None)

  @property
  def metrics(self) -> dict[str, float]:
    """What the record of training says about the step."""
    values = {f"train/{k}": v for k, v in vars(self).items() if v is not None}
    return {name: float(value) for name, value in values.items()}

  def of(self, model: Any, trained: tuple[int, int]) -> Any:
    """The model of the variant; `trained` is the size of the full images."""
    if self == Variant():
      return model
    return flexible.at_size(model, trained, patch_size=self.patch_size)

  def after(self, normalise: Callable) -> Callable:
    """`normalise` of a batch, with its images resized."""
    shorter = self.image_size
    if shorter is None:
      return normalise

    def resized(batch):
      batch = normalise(batch)
      b, h, w, c = batch["image"].shape
      sides = (round(n * shorter / min(h, w)) for n in (h, w))
      image = jax.image.resize(
        batch["image"], (b, *sides, c), "linear", antialias=True
      )
      return {**batch, "image": image}

    return resized


@dataclasses.dataclass(frozen=True)
class Variants:
  """The variant of each step of a run.

  Attributes:
    seed: seed of the draws.
    patch_sizes: patch sizes to draw from; () for the model's own.
    image_sizes: (last step, image size) of each phase; () for one size.
  """

  seed: int = 0
  patch_sizes: tuple[int, ...] = ()
  image_sizes: tuple[tuple[int, int], ...] = ()

  def at(self, step: int) -> Variant:
    """The variant of a step; the first step is 1."""
    patch_size = image_size = None
    if self.patch_sizes:
      seed = seeds.of_part(self.seed, sum(_USE.encode()))
      place = seeds.of_part(seed, step) * len(self.patch_sizes) >> 64
      patch_size = self.patch_sizes[place]
    if self.image_sizes:
      phases = (size for last, size in self.image_sizes if step <= last)
      image_size = next(phases)
    return Variant(patch_size, image_size)

  @property
  def all(self) -> list[Variant]:
    """All variants, the one with the longest sequence first."""
    sizes = {size for _, size in self.image_sizes} or {None}
    return [
      Variant(patch_size, image_size)
      for image_size in sorted(sizes, reverse=True, key=lambda n: n or 0)
      for patch_size in sorted(set(self.patch_sizes)) or [None]
    ]


def of_run(
  run: RunConfig, total_steps: int, images: tuple[int, int]
) -> Variants:
  """The variants of a run.

  Args:
    run: the config.
    total_steps: length of the run.
    images: (h, w) of the images after `input.pp`.

  Raises:
    ConfigError: if the largest image size is not that of the images.
  """
  section = run.flexible
  sizes = section.image_sizes
  if sizes and max(sizes) != min(images):
    raise ConfigError(
      f"config.flexible.image_sizes={tuple(sizes)}: the largest must be the "
      f"size of the images after config.input.pp, which are {images[0]}x"
      f"{images[1]}. Use {min(images)} as the largest size, or resize to "
      f"{max(sizes)} in config.input.pp."
    )
  shares = section.image_shares or [1] * len(sizes)
  ends = [
    round(total_steps * sum(shares[: i + 1]) / sum(shares))
    for i in range(len(sizes))
  ]
  return Variants(
    run.seed, tuple(section.patch_sizes), tuple(zip(ends, sizes, strict=True))
  )


def trace(
  variant: Variant,
  model: Any,
  weights: Any,
  inputs: Sequence[jax.ShapeDtypeStruct],
) -> None:
  """Raises ConfigError if the model of a variant cannot take its images."""
  image, *rest = inputs
  spec = jax.eval_shape(variant.after(dict), {"image": image})
  try:
    jax.eval_shape(
      lambda w, *x: model.apply(batch_norm.split(w), *x),
      weights,
      spec["image"],
      *rest,
    )
  except Exception as e:  # models fail in as many ways as they have options
    first = (str(e).splitlines() or [type(e).__name__])[0]
    raise ConfigError(
      f"config.flexible: the model cannot train at {variant}: {first}"
    ) from e
