"""The part of an objective that learns from a teacher."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vitjax import losses
from vitjax.config.schema import ConfigError, Distill, RunConfig
from vitjax.distill.teacher import Teacher
from vitjax.models.contract import Model

# Name of the learned projection of the student's features, beside the names of
# its parameters.
PROJECTION = "teacher_projection"

_Loss = Callable[[jax.Array, jax.Array], jax.Array]  # of logits and targets


@dataclasses.dataclass(frozen=True)
class Teaching:
  """See `objectives.Teaching`.

  Attributes:
    teacher: the teacher.
    distill: section of the config.
    loss_fn: cross-entropy of each example, a sigmoid's or a softmax's.
    is_sigmoid: which of the two.
    statistics: mean and deviation that normalise the student's images.
    width: number of the student's features.
  """

  teacher: Teacher
  distill: Distill
  loss_fn: _Loss
  is_sigmoid: bool
  statistics: Mapping[str, Any] | None
  width: int

  @property
  def is_cached(self) -> bool:
    """See `objectives.Teaching`."""
    return self.distill.cache is not None

  def init(self, key: jax.Array) -> dict[str, Any]:
    """The projection to the teacher's features; {} where it needs none.

    FitNets, https://arxiv.org/abs/1412.6550, sec. 2.2: its regressor.
    """
    wanted = self.teacher.width
    if not self.teacher.has_features or self.width == wanted:
      return {}
    kernel = jax.nn.initializers.lecun_normal()(key, (self.width, wanted))
    return {PROJECTION: {"kernel": kernel, "bias": jnp.zeros(wanted)}}

  def teach(self, weights, batch):
    """The teacher's outputs, as the feature "teacher"."""
    image = self.teacher.view(batch["image"], self.statistics)
    return {"teacher": self.teacher.outputs(weights, image)}

  def loss(self, params, label_loss, outputs, out, batch):
    """The mean of both losses by their weights.

    Of a model with two heads (`distilled` of `models.vit`), one learns from the
    labels and one from the teacher.
    """
    if self.teacher.has_features:
      features = out["pre_logits"].astype(jnp.float32)
      if PROJECTION in params:
        projection = params[PROJECTION]
        features = features @ projection["kernel"] + projection["bias"][None]
      value = cosine_distance(features, batch["teacher"]).mean()
    else:
      learning = out.get("logits/head_dist", outputs)
      value = self.distance(learning, batch["teacher"]).mean()
    share = self.distill.label_weight
    if share:
      labels = label_loss(out.get("logits/head", outputs), batch)
      value = share * labels + (1 - share) * value
    return value

  def distance(self, outputs: jax.Array, teacher: jax.Array) -> jax.Array:
    """Distance (b,) of logits (b, n) from those of the teacher."""
    if self.distill.loss == "hard":
      return self.loss_fn(outputs, self._decisions(teacher))
    t = self.distill.temperature
    outputs, teacher = outputs / t, teacher / t
    probabilities = (
      jax.nn.sigmoid(teacher) if self.is_sigmoid else jax.nn.softmax(teacher)
    )
    # Cross-entropy minus entropy.
    return t**2 * (
      self.loss_fn(outputs, probabilities)
      - self.loss_fn(teacher, probabilities)
    )

  def _decisions(self, teacher: jax.Array) -> jax.Array:
    if self.is_sigmoid:
      return (teacher > 0).astype(jnp.float32)
    return jax.nn.one_hot(teacher.argmax(axis=-1), teacher.shape[-1])


def cosine_distance(a: jax.Array, b: jax.Array) -> jax.Array:
  """1 - cosine of the rows (b, d) of two arrays.

  It is half of the squared distance of the rows that are scaled to length 1:
  the loss of FitNets, https://arxiv.org/abs/1412.6550, eq. 3, on normalised
  features, as AM-RADIO has it for the feature of an image,
  https://arxiv.org/abs/2312.06709.
  """

  def normalised(x):
    square = (x**2).sum(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, 1e-12))

  return 1 - (normalised(a) * normalised(b)).sum(axis=-1)


def make(
  run: RunConfig,
  teacher: Teacher | None,
  *,
  model: Model,
  num_classes: int | None,
  image_shape: tuple[int, ...],
  statistics: Mapping[str, Any] | None,
) -> Teaching | None:
  """The teaching of a run; None without a teacher.

  Args:
    run: the config.
    teacher: from `teacher.find`.
    model: the student.
    num_classes: width of the student's head.
    image_shape: shape (b, h, w, c) of the student's images.
    statistics: mean and deviation that normalise them.

  Raises:
    ConfigError: if the teacher does not fit the run.
  """
  if teacher is None:
    return None
  where = f"config.distill.teacher={teacher.source!r}"
  if not losses.needs_labels(run.loss):
    raise ConfigError(
      f"{where} does not fit config.loss={run.loss!r}: a teacher needs a "
      "student that predicts labels. Remove config.distill, or use another "
      "loss, such as --config.loss=softmax_xent."
    )
  if not teacher.has_features and losses.is_regression(run.loss):
    raise ConfigError(
      f"{where} has logits of classes, and config.loss={run.loss!r} predicts "
      "numbers. Use --config.distill.loss=features, or remove config.distill."
    )
  if not teacher.has_features and teacher.width != num_classes:
    raise ConfigError(
      f"{where} has {teacher.width} classes, and this run has {num_classes}. "
      "Its classes must be those of the data, in the same order: train a "
      "teacher on these data, for example by python -m vitjax.finetune, or use "
      "--config.distill.loss=features."
    )
  if teacher.channels != image_shape[-1]:
    raise ConfigError(
      f"{where} takes images with {teacher.channels} channels, and "
      f"config.input.pp makes {image_shape[-1]}. Change the channels of "
      "'decode' in config.input.pp and of the evals."
    )
  if run.distill.cache is not None and jax.process_count() > 1:
    raise ConfigError(
      f"config.distill.cache={run.distill.cache!r} is for runs of one process, "
      f"and this one has {jax.process_count()}. Remove it: the teacher then "
      "runs in each step."
    )
  is_sigmoid = losses.is_sigmoid(run.loss)
  loss_fn = losses.softmax_xent
  if is_sigmoid:
    is_mean = run.loss == "sigmoid_xent_mean"
    loss_fn = losses.sigmoid_xent_mean if is_mean else losses.sigmoid_xent
  return Teaching(
    teacher,
    run.distill,
    loss_fn,
    is_sigmoid=is_sigmoid,
    statistics=statistics,
    width=_width(model, image_shape) if teacher.has_features else 0,
  )


def _width(model: Model, image_shape: tuple[int, ...]) -> int:
  """Number of the student's features.

  Raises:
    ConfigError: if it has none, or a head that would learn nothing.
  """
  where = (
    f"config.distill.loss='features' does not fit {type(model).__module__}"
  )
  image = jax.ShapeDtypeStruct((1, *image_shape[1:]), jnp.float32)
  _, out = jax.eval_shape(
    lambda key, image: model.apply(model.init(key, image), image),
    jax.random.key(0),
    image,
  )
  if "logits/head_dist" in out:
    raise ConfigError(
      f"{where} with distilled=True, whose second head learns from the logits "
      "of a teacher. Set --config.model.distilled=False."
    )
  if "pre_logits" not in out or out["pre_logits"].ndim != 2:
    raise ConfigError(
      f"{where}: its output 'pre_logits' must be a vector for each image, "
      "(b, d)."
    )
  return out["pre_logits"].shape[-1]
