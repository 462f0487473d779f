"""The teacher of a run: its model, its weights, and its view of the images."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vitjax import models, trained, trees
from vitjax.config.schema import ConfigError, RunConfig, split_name
from vitjax.data.pp import builder
from vitjax.models import batch_norm
from vitjax.weights import description

_AS_THEY_ARE = {"mean": [0.0], "std": [1.0]}  # pixels that are not normalised


@dataclasses.dataclass(frozen=True)
class Loaded:
  """Weights of a teacher, and a checksum of all that its outputs depend on."""

  weights: Any
  checksum: str


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A trained model that does not change.

  Attributes:
    source: what the config calls it.
    options: name and options of its model.
    model: its model; of two towers, the image tower teaches.
    has_features: whether the features of images are learned, and not logits.
    width: number of them.
    image_size: (height, width) in pixels that it was trained for.
    channels: channels of its images.
    statistics: mean and deviation with which its images are normalised.
    abstract: shapes and types of its weights on the devices.
  """

  source: str
  options: Mapping[str, Any]
  model: Any
  has_features: bool
  width: int
  image_size: tuple[int, int]
  channels: int
  statistics: Mapping[str, list[float]]
  abstract: Any

  def __str__(self) -> str:
    count = sum(x.size for x in jax.tree.leaves(self.abstract))
    height, width = self.image_size
    outputs = "features" if self.has_features else "logits"
    return (
      f"{self.source}, {count:,} parameters in {self.model.dtype}, images of "
      f"{height}x{width}, {self.width:,} {outputs}, frozen"
    )

  def load(self, pretrained_dir: str | None) -> Loaded:
    """Its weights.

    Raises:
      ConfigError: if they cannot be read.
    """
    try:
      found = trained.load(self.source, pretrained_dir=pretrained_dir).params
    except (OSError, ValueError, RuntimeError, ImportError) as e:
      raise _error(self.source, e) from e
    params = {name: found[name] for name in self.abstract}  # no text tower
    weights = jax.tree.map(
      lambda spec, x: np.asarray(x).astype(spec.dtype), self.abstract, params
    )
    facts: list[Any] = [self.options, self.image_size, self.statistics]
    if self.has_features:
      facts.append("features")
    return Loaded(weights, checksum(params, facts))

  def check_same(self, saved: str, found: str) -> None:
    """Raises ConfigError if a run would resume with another teacher.

    Args:
      saved: checksum in the checkpoint.
      found: checksum of the weights that were read now.
    """
    if saved != found:
      raise ConfigError(
        f"config.distill.teacher={self.source!r} has other weights (SHA-256 "
        f"{found[:12]}...), or another model or normalisation, than when this "
        f"run began ({saved[:12]}...). Restore it to resume, or start a new "
        "run with another --workdir."
      )

  def outputs(self, weights: Any, image: jax.Array) -> jax.Array:
    """Outputs (b, n) float32 of images (b, h, w, c) as `view` returns them."""
    variables = batch_norm.split(weights)
    return _outputs(self.model, variables, image, self.has_features)

  def view(
    self, image: jax.Array, statistics: Mapping[str, Any] | None
  ) -> jax.Array:
    """Images in the teacher's normalisation and size.

    Mixing is linear, so a mixed image is normalised anew as if it had been
    mixed in the teacher's normalisation.

    Args:
      image: (b, h, w, c) normalised for the student.
      statistics: mean and deviation of that; None if it is not normalised.
    """
    student = statistics or _AS_THEY_ARE
    image = image.astype(jnp.float32)
    if student != self.statistics:
      old_mean, old_std, mean, std = (
        np.asarray(x[key], np.float32).reshape(1, 1, 1, -1)
        for x in (student, self.statistics)
        for key in ("mean", "std")
      )
      image = image * (old_std / std) + (old_mean - mean) / std
    b, h, w, c = image.shape
    if (h, w) != self.image_size:
      shape = (b, *self.image_size, c)
      image = jax.image.resize(image, shape, "bilinear", antialias=True)
    return image


def find(run: RunConfig) -> Teacher | None:
  """The teacher that `config.distill` names; reads no weights.

  Raises:
    ConfigError: if there is none of that name, or it has no such outputs.
  """
  source, dtype = run.distill.teacher, jnp.dtype(run.distill.dtype)
  if source is None:
    return None
  try:
    metadata = trained.describe(source, pretrained_dir=run.pretrained_dir)
    description.check_listed(metadata, source)
    name, options = split_name(metadata["model"])
    model = models.create(name, **{**options, "dtype": run.distill.dtype})
    preprocess = builder.build(builder.for_images(metadata["preprocess"]))
  except (OSError, ValueError, RuntimeError, ImportError) as e:
    raise _error(source, e) from e
  has_features = run.distill.loss == "features"
  has_logits = not model.towers() and getattr(model, "num_classes", None)
  if not has_features and not has_logits:
    raise ConfigError(
      f"config.distill.teacher={source!r} has no classes, and so no logits for "
      f"config.distill.loss={run.distill.loss!r}. Use "
      "--config.distill.loss=features, or name a classifier."
    )
  image_size, channels = tuple(metadata["image_size"]), metadata["channels"]
  inputs = model.example_inputs(image_size, channels)
  variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  if model.towers():
    del variables["params"]["txt"]
  # Running statistics stay float32, as in training.
  params = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, dtype), variables["params"]
  )
  try:
    outputs = jax.eval_shape(
      lambda variables, image: _outputs(model, variables, image, has_features),
      variables,
      inputs[0],
    )
  except KeyError as e:
    raise _error(source, f"its model has no output {e}.") from e
  if outputs.ndim != 2:
    shape = outputs.shape[1:]
    raise _error(
      source, f"its features {shape} are not a vector for each image."
    )
  return Teacher(
    source=source,
    options=metadata["model"],
    model=model,
    has_features=has_features,
    width=outputs.shape[-1],
    image_size=image_size,
    channels=channels,
    statistics=preprocess.pixel_statistics.get("image", _AS_THEY_ARE),
    abstract=batch_norm.join({**variables, "params": params}),
  )


def _outputs(
  model, variables: Mapping[str, Any], image: jax.Array, has_features: bool
) -> jax.Array:
  """Logits of images, or their features as `Trained.features` has them."""
  first, *_, out = model.apply(variables, image, train=False)
  if has_features and not model.towers():
    first = out["pre_logits"]
  return first.astype(jnp.float32)


def _error(source: str, reason: object) -> ConfigError:
  return ConfigError(
    f"config.distill.teacher={source!r}: {reason} Name a run folder, an "
    "exported file or a published name."
  )


def checksum(weights: Any, facts: Any) -> str:
  """SHA-256 of facts, and of the names and float32 values of weights."""
  content = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
  for name, x in sorted(trees.flatten(weights).items()):
    x = np.asarray(x, "<f4", order="C")
    content.update(f"{name} {x.shape}\n".encode())
    content.update(x.data)
  return content.hexdigest()
