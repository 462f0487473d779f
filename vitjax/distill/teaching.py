"""The part of an objective that learns from a teacher."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vitjax import losses
from vitjax.config.schema import ConfigError, Distill, RunConfig
from vitjax.distill.teacher import Teacher

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
  """

  teacher: Teacher
  distill: Distill
  loss_fn: _Loss
  is_sigmoid: bool
  statistics: Mapping[str, Any] | None

  @property
  def is_cached(self) -> bool:
    """See `objectives.Teaching`."""
    return self.distill.cache is not None

  def teach(self, weights, batch):
    """The teacher's logits, as the feature "teacher"."""
    image = self.teacher.view(batch["image"], self.statistics)
    return {"teacher": self.teacher.outputs(weights, image)}

  def loss(self, label_loss, outputs, out, batch):
    """The mean of both losses by their weights.

    Of a model with two heads (`distilled` of `models.vit`), one learns from the
    labels and one from the teacher.
    """
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


def make(
  run: RunConfig,
  teacher: Teacher | None,
  *,
  num_classes: int | None,
  image_shape: tuple[int, ...],
  statistics: Mapping[str, Any] | None,
) -> Teaching | None:
  """The teaching of a run; None without a teacher.

  Args:
    run: the config.
    teacher: from `teacher.find`.
    num_classes: width of the student's head.
    image_shape: shape (b, h, w, c) of the student's images.
    statistics: mean and deviation that normalise them.

  Raises:
    ConfigError: if the teacher does not fit the run.
  """
  if teacher is None:
    return None
  where = f"config.distill.teacher={teacher.source!r}"
  if not losses.needs_labels(run.loss) or losses.is_regression(run.loss):
    raise ConfigError(
      f"{where} does not fit config.loss={run.loss!r}: a teacher has logits of "
      "classes. Remove config.distill."
    )
  if teacher.model.num_classes != num_classes:
    raise ConfigError(
      f"{where} has {teacher.model.num_classes} classes, and this run has "
      f"{num_classes}. Its classes must be those of the data, in the same "
      "order: train a teacher on these data, for example by python -m "
      "vitjax.finetune."
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
    teacher, run.distill, loss_fn, is_sigmoid=is_sigmoid, statistics=statistics
  )
