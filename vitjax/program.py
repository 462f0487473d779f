"""The parts of a run, assembled before any array exists.

Training runs this program and `vitjax.plan` compiles it for devices that are
absent, so both see the same one.
"""

import dataclasses
import functools
from collections.abc import (
  Callable,
  Collection,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any, overload

import jax
import numpy as np
import optax

from vitjax import evaluators, losses, mixing, models, objectives, optim
from vitjax import step as step_lib
from vitjax.config import schema
from vitjax.config.schema import ConfigError, RunConfig, split_name
from vitjax.data import device, order, pipeline
from vitjax.data.pp import builder
from vitjax.data.sources.source import KINDS, Source
from vitjax.optim import schedules
from vitjax.parallel import sharding

# Classes that are all named in a line of the log.
_MOST_NAMED = 10


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
    objective: see `vitjax.objectives`.
    scale: see `target_scale`.
    tx: the optimizer.
    init_weights: key -> parameters and statistics, in one tree.
    make_state: weights -> state before the first step.
    abstract: shapes and types of the state.
    shardings: where each array of the state lives.
    train_step: (state, batch) -> (state, metrics), not yet traced.
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
  objective: objectives.Objective
  scale: tuple[np.ndarray, np.ndarray] | None
  tx: optax.GradientTransformation
  init_weights: Callable[[jax.Array], step_lib.Weights]
  make_state: Callable[[step_lib.Weights], step_lib.TrainState]
  abstract: step_lib.TrainState
  shardings: step_lib.TrainState
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
  batch = pipeline.example_spec(source, preprocess, run.input.batch_size)
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
  scale = target_scale(source)
  objective = make_objective(
    run, source, model, num_classes, class_weights, scale
  )
  tx = optim.make_optimizer(**run.optim, schedule=schedule, model=model)
  make_state = functools.partial(
    step_lib.make_state, tx=tx, ema=run.ema.decay is not None
  )
  inputs = [spec[name] for name in objective.inputs]
  init_weights = step_lib.make_init_fn(model, *inputs)
  abstract = jax.eval_shape(
    lambda key: make_state(init_weights(key)), jax.random.key(run.seed)
  )
  shardings = sharding.of_state(abstract, run.sharding, mesh)
  step = step_lib.make_train_step(
    objective,
    tx,
    normalise=preprocess.on_device,
    seed=run.seed,
    schedule=schedule,
    learning_rate=run.optim["learning_rate"],
    accumulation_steps=run.accumulation_steps,
    frozen=run.optim.get("freeze", ()),
    freeze_statistics=run.statistics.freeze,
    ema_decay=run.ema.decay,
    ema_warmup=run.ema.warmup,
    ema_statistics=run.statistics.ema == "average",
    sam_rho=run.sam.rho,
    sam_rho_min=run.sam.rho_min,
    sam_alpha=run.sam.alpha,
  )

  def train_step(state, batch):
    # `sharding.constrain_batch` and fused attention need the mesh.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return step(state, batch)

  train_step = jax.jit(
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
    objective=objective,
    scale=scale,
    tx=tx,
    init_weights=init_weights,
    make_state=make_state,
    abstract=abstract,
    shardings=shardings,
    train_step=train_step,
  )


def number_of_classes(run: RunConfig, source: Source) -> int | None:
  """Width of the head: the config's, or the number of classes of the data.

  None for a run on images and texts, which has no classes.

  Raises:
    ConfigError: if neither says, the data has more classes than that, or
      `config.model` has another number.
  """
  if run.loss in losses.CONTRASTIVE:
    return None
  num_classes = run.num_classes or source.num_classes
  if source.kind != "single_label" and num_classes != source.num_classes:
    raise ConfigError(
      f"config.num_classes={run.num_classes}, but {source.data} has "
      f"{source.num_classes} columns of labels. Remove config.num_classes."
    )
  if not num_classes or num_classes < (source.num_classes or 0):
    raise ConfigError(
      f"config.num_classes={run.num_classes}, but {source.data} has "
      f"{source.num_classes or 'no known number of'} classes."
    )
  of_model = run.model.get("num_classes", num_classes)
  if of_model != num_classes:
    raise ConfigError(
      f"config.model.num_classes={of_model}, but the run has {num_classes} "
      f"classes ({source.data} has {source.num_classes}). Remove it; "
      "config.num_classes makes the head wider than the data need."
    )
  return num_classes


def create_model(section: Any, num_classes: int | None, platform: str):
  """The model, computing in `models.default_dtype`."""
  dtype = models.default_dtype(platform)
  name, options = split_name(section)
  return models.create(
    name, **{"dtype": dtype, **_head(num_classes), **options}
  )


def _head(num_classes: int | None) -> dict[str, Any]:
  return {} if num_classes is None else {"num_classes": num_classes}


# Kind of labels -> settings without a meaning, and why.
_UNFIT = {
  "soft_label": {"target_threshold": "its targets are probabilities"},
  "regression": {
    "class_weights": "its targets are numbers, not classes",
    "mixing.label_smoothing": "its targets are numbers, not classes",
    "target_threshold": "its targets are numbers, not classes",
  },
}


def check_labels(run: RunConfig, source: Source) -> None:
  """Raises ConfigError if the config does not fit the labels of the data."""
  if run.loss in losses.CONTRASTIVE:
    return
  kind, what = source.kind, KINDS[source.kind]
  if run.loss not in losses.OF_KIND[kind]:
    hint = ""
    if kind == "single_label" and losses.is_regression(run.loss):
      hint = (
        " If its labels are numbers, in a column label of a table, add "
        ":regression=label to the name of the data."
      )
    raise ConfigError(
      f"config.loss={run.loss!r} does not fit {source.data}, where each image "
      f"has {what}. Use one of {', '.join(losses.OF_KIND[kind])}.{hint}"
    )
  settings = {
    "class_weights": run.class_weights,
    "mixing.label_smoothing": run.mixing.label_smoothing or None,
    "target_threshold": run.target_threshold,
    "input.sampling": run.input.sampling,
  }
  unfit = dict(_UNFIT.get(kind, {}))
  if source.has_unknown:
    unfit["input.sampling"] = "some images have an unknown class"
  for key, why in unfit.items():
    if settings[key] is not None:
      raise ConfigError(
        f"config.{key}={settings[key]!r} does not fit {source.data}: {why}. "
        "Remove it."
      )
  for key in ("class_weights", "input.sampling"):
    by_target = key == "class_weights" and kind == "multi_label"
    if isinstance(settings[key], str) and not by_target:
      try:
        source.known_labels()
      except ValueError as e:
        raise ConfigError(f"config.{key}={settings[key]!r}: {e}") from e


def check_features(run: RunConfig, source: Source, found: Collection[str]):
  """Raises ConfigError if the ops have removed the labels of the images.

  Args:
    run: the config.
    source: the training data.
    found: names of the features after the ops.
  """
  needed = [] if source.kind == "single_label" else ["labels"]
  if source.has_unknown and source.labels is not None:
    needed.append("label")
  for name in needed:
    if name not in found:
      raise ConfigError(
        f"config.input.pp={run.input.pp!r} removes the feature {name!r}, which "
        f"the loss of {source.data} needs. Keep it."
      )


def target_scale(source: Source) -> tuple[np.ndarray, np.ndarray] | None:
  """Mean and deviation (n,) float32 of each target of a regression.

  Of the training data, without unknown ones; None for other kinds of labels. A
  target that is always the same has deviation 1.

  Raises:
    ConfigError: if a target is unknown for all images.
  """
  if source.kind != "regression":
    return None
  assert source.targets is not None  # of all kinds but single labels
  values = source.targets.astype(np.float64)
  absent = np.isnan(values).all(axis=0)
  if absent.any():
    name = (source.class_names or ())[int(absent.argmax())]
    raise ConfigError(
      f"{source.data} {source.split}: {name} is unknown for all images."
    )
  mean, deviation = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
  deviation = np.where(deviation > 0, deviation, 1.0)
  return mean.astype(np.float32), deviation.astype(np.float32)


def weights_of_classes(
  run: RunConfig, source: Source, num_classes: int | None
) -> Sequence[float] | None:
  """`config.class_weights` as one number for each class; None without any.

  "balanced" is n / (classes * images of the class); where images have several
  classes, the weight of its positive images is negative / positive.

  Args:
    run: the config.
    source: the training data, which passes `check_labels`.
    num_classes: width of the head.

  Raises:
    ConfigError: if there is not one for each class.
  """
  given = run.class_weights
  if given is None:
    return None
  if given == "balanced" and source.kind == "multi_label":
    assert source.targets is not None  # of all kinds but single labels
    positive = (source.targets == 1).sum(axis=0).tolist()
    negative = (source.targets == 0).sum(axis=0).tolist()
    return [n / p if p and n else 1.0 for p, n in zip(positive, negative)]
  if given == "balanced":
    labels = source.known_labels()
    labels = labels[labels >= 0]
    counts = np.bincount(labels, minlength=num_classes or 0)
    # As scikit-learn's; a class without images has no use for a weight.
    mean = len(labels) / np.count_nonzero(counts)
    return [mean / count if count else 0.0 for count in counts.tolist()]
  if len(given) != num_classes:
    raise ConfigError(
      f"config.class_weights={given!r} has {len(given)} weights, and the run "
      f"has {num_classes} classes. Give one for each class, or 'balanced'."
    )
  return given


def describe_classes(
  run: RunConfig, source: Source, num_classes: int | None
) -> Iterator[str]:
  """Sentences about how much each class counts, for the start of a run.

  Args:
    run: the config.
    source: the training data.
    num_classes: width of the head; None without classes.
  """
  if num_classes is None or source.num_classes is None:
    return
  names = [str(x) for x in source.class_names or range(source.num_classes)]
  sampling = f"Sampling: {run.input.sampling or 'uniform'}"
  if source.labels is None:
    yield f"{sampling}."
  else:
    of_images = order.shares(source.labels, None, len(names)) * 100
    shown = source.shares(run.input.sampling) * 100
    parts = {
      name: f"{a:.3g} -> {b:.3g} %"
      for name, a, b in zip(names, of_images, shown)
    }
    meaning = "share of the images -> share of what is shown"
    if np.array_equal(of_images, shown):
      parts = {name: f"{x:.3g} %" for name, x in zip(names, shown)}
      meaning = "each image once in each epoch; share of the images"
    yield f"{sampling}; {meaning}: {_extremes(parts, of_images)}."
  if (weights := weights_of_classes(run, source, num_classes)) is not None:
    how = " (balanced)" if run.class_weights == "balanced" else ""
    parts = {name: f"{x:.3g}" for name, x in zip(names, weights)}
    yield f"Class weights{how}: {_extremes(parts, np.asarray(weights))}."


def _extremes(parts: Mapping[str, str], values: np.ndarray) -> str:
  """A text for each class, or for those with the largest and smallest value."""
  texts = [f"{name}: {text}" for name, text in parts.items()]
  if len(texts) <= _MOST_NAMED:
    return ", ".join(texts)
  down = np.argsort(-values, kind="stable")
  first, last = ([texts[i] for i in x] for x in (down[:3], down[-3:]))
  more = f"... {len(texts) - 6:,} more ..."
  return ", ".join([*first, more, *last])


def make_objective(
  run: RunConfig,
  source: Source,
  model,
  num_classes: int | None,
  class_weights: Sequence[float] | None,
  scale: tuple[np.ndarray, np.ndarray] | None,
):
  """The training objective, see `vitjax.objectives`."""
  if run.loss in losses.CONTRASTIVE:
    return objectives.contrastive(model, loss_fn=losses.CONTRASTIVE[run.loss])
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
    )
  return objectives.classification(
    model,
    loss_fn=losses.LOSSES[run.loss],
    num_classes=num_classes,
    augment=functools.partial(mixing.augment, **options),
    class_weights=class_weights,
    augment_known=augment_known if source.has_unknown else None,
  )


def describe_labels(parts: Program) -> str:
  """What the images of the training data have, for the log."""
  if parts.num_classes is None:
    return "with texts"
  what = {
    "single_label": "classes",
    "multi_label": "classes, of which an image has any number",
    "soft_label": "classes with probabilities",
    "regression": "targets",
  }[parts.source.kind]
  return f"{parts.num_classes} {what}"


def describe_model(parts: Program) -> dict[str, Any]:
  """All that is needed to use the parameters, as plain data for `model.json`.

  The preprocessing is that of the first eval on the training data set, the
  tokenizer that of training.
  """
  run, source = parts.run, parts.source
  first = next(
    filter(functools.partial(_is_own, run), run.evals.values()), None
  )
  first = first or next(iter(run.evals.values()), run.input)
  _, height, width, channels = parts.spec["image"].shape
  metadata = {
    "model": {**_head(parts.num_classes), **run.model},
    "image_size": [height, width],
    "channels": channels,
    "preprocess": first.pp,
    "class_names": source.class_names and list(source.class_names),
    "data": source.data,
    "loss": run.loss,
  }
  if source.kind != "single_label":
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
