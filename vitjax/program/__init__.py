"""The parts of a run, assembled before any array exists.

Training runs this program and `vitjax.plan` compiles it for devices that are
absent, so both see the same one.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import numpy as np
import optax

from vitjax import evaluators, losses, mixing, models, objectives, optim
from vitjax import step as step_lib
from vitjax.config import schema
from vitjax.config.schema import ConfigError, RunConfig, split_name
from vitjax.data import device, pipeline
from vitjax.data.pp import builder
from vitjax.data.sources.source import Source
from vitjax.distill import teacher, teaching
from vitjax.distill.teaching import Teaching
from vitjax.optim import schedules
from vitjax.parallel import sharding
from vitjax.program import variants
from vitjax.program.labels import (
  check_features,
  check_labels,
  number_of_classes,
  target_scale,
  weights_of_classes,
)


@dataclasses.dataclass(frozen=True)
class Program:
  """All that a run computes with, see the module.

  Attributes:
    run: the config.
    mesh: the devices.
    source: the training data.
    num_classes: width of the head; None without classes.
    preprocess: ops of the training images.
    batch: shapes and types of a global batch as it leaves the hosts.
    spec: shapes and types of a global batch as the model gets it.
    total_steps: length of the run.
    model: obeys the contract of `vitjax.models`.
    variants: the variant of each step.
    objective: see `vitjax.objectives`; that of the largest variant.
    teaching: how the model learns from a teacher, if it has one.
    scale: see `labels.target_scale`.
    tx: the optimizer.
    init: key -> state before the first step with random weights, without the
      teacher.
    make_state: the same of weights, parameters and statistics in one tree;
      parameters of the loss are random.
    abstract: shapes and types of the state.
    shardings: where each array of the state lives.
    model_of: variant -> its model.
    step_of: variant -> its train step, (state, batch) -> (state, metrics), not
      yet traced.
    train_step: that of the largest variant.
  """

  run: RunConfig
  mesh: jax.sharding.Mesh
  source: Source
  num_classes: int | None
  preprocess: builder.Preprocess
  batch: dict[str, jax.ShapeDtypeStruct]
  spec: dict[str, jax.ShapeDtypeStruct]
  total_steps: int
  model: models.Model
  variants: variants.Variants
  objective: objectives.Objective
  teaching: Teaching | None
  scale: tuple[np.ndarray, np.ndarray] | None
  tx: optax.GradientTransformation
  init: Callable[[jax.Array], step_lib.TrainState]
  make_state: Callable[[step_lib.Weights], step_lib.TrainState]
  abstract: step_lib.TrainState
  shardings: step_lib.TrainState
  model_of: Callable[[variants.Variant], models.Model]
  step_of: Callable[[variants.Variant], Any]
  train_step: Any

  @property
  def placed(self) -> step_lib.TrainState:
    """`abstract` with its shardings: what a step is called with."""
    return jax.tree.map(
      lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
      self.abstract,
      self.shardings,
    )

  @overload
  def steps(self, duration: schema.Duration) -> int: ...

  @overload
  def steps(self, duration: None) -> None: ...

  def steps(self, duration: schema.Duration | None) -> int | None:
    """A duration of the config in steps."""
    return to_steps(self.run, self.source, duration, self.total_steps)


def to_steps(
  run: RunConfig,
  source: Source,
  duration: schema.Duration | None,
  total_steps: int | None = None,
) -> int | None:
  """A duration of the config in steps; None stays None."""
  if duration is None:
    return None
  return schema.to_steps(
    duration,
    batch_size=run.input.batch_size,
    num_examples=source.num_examples,
    total_steps=total_steps,
  )


def assemble(
  run: RunConfig, source: Source, mesh: jax.sharding.Mesh
) -> Program:
  """Assembles the parts of a run; allocates and reads nothing.

  Args:
    run: a config that passes `checks.check`.
    source: the training data.
    mesh: from `sharding.make_mesh`; its devices may be those of a topology.

  Raises:
    ConfigError: if the number of classes is unknown or contradictory, or the
      class weights do not fit.
    ValueError: if the sharding does not fit the model or the mesh.
  """
  check_labels(run, source)
  num_classes = number_of_classes(run, source)
  preprocess = builder.build(run.input.pp, class_names=source.class_names)
  batch = pipeline.example_spec(
    source, preprocess, run.input.batch_size, run.input.views
  )
  check_features(run, source, batch)
  spec = jax.eval_shape(preprocess.on_device, device.on_arrival(batch))

  total_steps = to_steps(run, source, run.total)
  assert total_steps is not None  # a run has a length
  steps = functools.partial(to_steps, run, source, total_steps=total_steps)
  schedule = schedules.make_schedule(
    run.schedule.decay,
    total_steps=total_steps,
    warmup_steps=steps(run.schedule.warmup) or 0,
    end_value=run.schedule.end_value,
    timescale_steps=steps(run.schedule.timescale) or 10_000,
    cooldown_steps=steps(run.schedule.cooldown) or 0,
  )

  platform = mesh.devices.flat[0].platform
  model = create_model(run.model, num_classes, platform)
  class_weights = weights_of_classes(run, source, num_classes)
  scale = target_scale(source) if losses.needs_labels(run.loss) else None
  images = spec["image"].shape[1:3]
  choice = variants.of_run(run, total_steps, images)

  def model_of(variant):
    return variant.of(model, images)

  taught = teaching.make(
    run,
    teacher.find(run),
    model=model,
    num_classes=num_classes,
    image_shape=spec["image"].shape,
    statistics=preprocess.pixel_statistics.get("image"),
  )
  if taught is not None and taught.is_cached:
    outputs = (run.input.batch_size, taught.teacher.width)
    del batch["view"], spec["view"]
    batch["teacher"] = spec["teacher"] = jax.ShapeDtypeStruct(
      outputs, np.float32
    )

  def objective_of(variant):
    return make_objective(
      run, source, model_of(variant), num_classes, class_weights, scale, taught
    )

  objective = objective_of(choice.all[0])
  tx = optim.make_optimizer(**run.optim, schedule=schedule, model=model)

  def make_state(weights):
    loss_params = taught.init(jax.random.key(run.seed)) if taught else {}
    return step_lib.make_state(
      weights, tx, ema=run.ema.is_on, loss_params=loss_params
    )

  inputs = [spec[name] for name in objective.inputs]
  init_weights = step_lib.make_init_fn(model, *inputs)

  def init(key):
    return make_state(init_weights(key))

  abstract = jax.eval_shape(init, jax.random.key(run.seed))
  check_averages(run, bool(abstract.statistics), total_steps, steps)
  if taught is not None and not taught.is_cached:
    weights = taught.teacher.abstract
    abstract = dataclasses.replace(abstract, teacher=weights)
  shardings = sharding.of_state(abstract, run.sharding, mesh)
  for variant in choice.all[1:]:
    variants.trace(variant, model_of(variant), abstract.weights, inputs)

  def step_of(variant):
    step = step_lib.make_train_step(
      objective_of(variant),
      tx,
      normalise=variant.after(preprocess.on_device),
      seed=run.seed,
      schedule=schedule,
      learning_rate=run.optim["learning_rate"],
      accumulation_steps=run.accumulation_steps,
      frozen=run.optim.get("freeze", ()),
      freeze_statistics=run.statistics.freeze,
      ema_decay=run.ema.decay,
      ema_warmup=run.ema.warmup,
      ema_uniform_from=steps(run.ema.uniform_from),
      ema_statistics=run.statistics.ema == "average",
      sam_rho=run.sam.rho,
      sam_rho_min=run.sam.rho_min,
      sam_alpha=run.sam.alpha,
    )

    def train_step(state, batch):
      # `sharding.constrain_batch` and fused attention need the mesh.
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        state, metrics = step(state, batch)
      return state, {**metrics, **variant.metrics}

    return jax.jit(
      train_step,
      donate_argnums=0,
      in_shardings=(shardings, sharding.over_batch(mesh)),
      out_shardings=(shardings, sharding.replicated(mesh)),
    )

  return Program(
    run=run,
    mesh=mesh,
    source=source,
    num_classes=num_classes,
    preprocess=preprocess,
    batch=batch,
    spec=spec,
    total_steps=total_steps,
    model=model,
    variants=choice,
    objective=objective,
    teaching=taught,
    scale=scale,
    tx=tx,
    init=init,
    make_state=make_state,
    abstract=abstract,
    shardings=shardings,
    model_of=model_of,
    step_of=step_of,
    train_step=step_of(choice.all[0]),
  )


def check_averages(
  run: RunConfig,
  has_statistics: bool,
  total_steps: int,
  steps: Callable[[schema.Duration | None], int | None],
) -> None:
  """Raises ConfigError if an average of the weights does not fit the run."""
  name, start = run.optim["name"], steps(run.ema.uniform_from)
  if has_statistics and optim.is_schedule_free(name):
    raise ConfigError(
      f"config.optim.name={name!r} does not fit config.model.name="
      f"{run.model['name']!r}: the running statistics of its batch "
      "normalisation are those of the weights that gradients are computed at, "
      "not of the average that is evaluated. Use another optimizer, such as "
      f"{'sgd' if name.endswith('sgd') else 'adamw'}, or a model without batch "
      "normalisation."
    )
  if start is not None and start >= total_steps:
    raise ConfigError(
      f"config.ema.uniform_from={run.ema.uniform_from} is step {start:,}, and "
      f"the run ends at step {total_steps:,}, so nothing would be averaged. "
      "Start earlier, such as --config.ema.uniform_from_percent=75."
    )


def create_model(section: Any, num_classes: int | None, platform: str):
  """The model, computing in `models.default_dtype`."""
  dtype = models.default_dtype(platform)
  name, options = split_name(section)
  return models.create(
    name, **{"dtype": dtype, **_head(num_classes), **options}
  )


def _head(num_classes: int | None) -> dict[str, Any]:
  return {} if num_classes is None else {"num_classes": num_classes}


def make_objective(
  run: RunConfig,
  source: Source,
  model,
  num_classes: int | None,
  class_weights: Sequence[float] | None,
  scale: tuple[np.ndarray, np.ndarray] | None,
  taught: objectives.Teaching | None,
):
  """The training objective, see `vitjax.objectives`."""
  if run.loss in losses.CONTRASTIVE:
    return objectives.contrastive(model, loss_fn=losses.CONTRASTIVE[run.loss])
  if run.loss in losses.MASKED:
    return objectives.masked(model, loss_fn=losses.MASKED[run.loss])
  if run.loss in losses.CAPTIONS:
    return objectives.captions(model, loss_fn=losses.CAPTIONS[run.loss])
  assert num_classes is not None  # see `number_of_classes`
  options = {**vars(run.mixing), "target_threshold": run.target_threshold}
  is_binary = source.kind == "multi_label"
  augment_known = functools.partial(
    mixing.augment_known, binary=is_binary, **options
  )
  if is_binary or source.kind == "regression":
    return objectives.per_output(
      model,
      loss_fn=losses.OUTPUT_LOSSES[run.loss],
      augment_known=augment_known,
      scale=scale,
      class_weights=class_weights,
      teaching=taught,
    )
  return objectives.classification(
    model,
    loss_fn=losses.LOSSES[run.loss],
    num_classes=num_classes,
    augment=functools.partial(mixing.augment, **options),
    class_weights=class_weights,
    augment_known=augment_known if source.has_unknown else None,
    teaching=taught,
  )


def describe_model(parts: Program) -> dict[str, Any]:
  """All that is needed to use the parameters, as plain data for `model.json`.

  The preprocessing is that of the first eval on the training data set; without
  evals that of training, but for its random ops. The tokenizer is that of
  training.
  """
  run, source = parts.run, parts.source
  own = filter(functools.partial(_is_own, run), run.evals.values())
  first = next(own, None) or next(iter(run.evals.values()), None)
  _, height, width, channels = parts.spec["image"].shape
  metadata = {
    "model": {**_head(parts.num_classes), **run.model},
    "image_size": [height, width],
    "channels": channels,
    "preprocess": (first.pp if first else builder.without_chance(run.input.pp)),
    "class_names": source.class_names and list(source.class_names),
    "data": source.data,
    "loss": run.loss,
  }
  if source.kind != "single_label" and losses.needs_labels(run.loss):
    metadata["labels"] = source.kind
  if parts.scale is not None:
    mean, deviation = (x.tolist() for x in parts.scale)
    metadata["target_mean"], metadata["target_deviation"] = mean, deviation
  if parts.preprocess.tokenize is not None:
    metadata["tokenizer"] = parts.preprocess.tokenize.facts
  return metadata


def _is_own(run: RunConfig, section: schema.Eval) -> bool:
  """Whether an eval measures the trained task: its data and its classes."""
  own_classes = getattr(evaluators.find(section.type), "own_classes", False)
  return section.data in (None, run.input.data) and not own_classes
