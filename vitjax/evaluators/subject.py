"""What evaluators must know of a model, and how one is made for a section.

Training, `vitjax.evaluate` and the report make their evaluators here, so that
all three see the same images in the same way.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vitjax import evaluators
from vitjax.config import messages
from vitjax.config.schema import ConfigError, Eval, RunConfig
from vitjax.data import sources, tokenizers
from vitjax.data.pp import builder
from vitjax.data.sources.source import DatasetNotPreparedError, Source
from vitjax.evaluators import base
from vitjax.evaluators.classes import Classes
from vitjax.evaluators.patch_sizes import PatchSizes

# Suffix of the name of an eval of the averaged parameters.
EMA_SUFFIX = "_ema"


@dataclasses.dataclass(frozen=True)
class Subject:
  """What evaluators must know of a model, and the defaults of evals.

  Attributes:
    data: training data of the model, if known.
    data_dir: folder in which TFDS looks for these data.
    cache: whether decoded images are kept, see `sources.open_source`.
    batch_size: default batch size of an eval.
    num_classes: width of the head; None without classes.
    class_names: classes of the head, if known.
    loss: name of the training loss.
    pixel_statistics: how images are normalised for it, see `pp.builder`.
    tokenizer: tokenizer of its texts, if it reads texts.
    image_shape: (h, w, c) of the images it was trained on, if known.
    target_scale: mean and deviation of the targets that a regression was
      trained on.
  """

  data: str | None
  data_dir: str | None
  cache: bool
  batch_size: int
  num_classes: int | None
  class_names: tuple[str, ...] | None
  loss: str
  pixel_statistics: Mapping[str, Any]
  tokenizer: tokenizers.Tokenizer | None
  image_shape: tuple[int, int, int] | None = None
  target_scale: tuple[np.ndarray, np.ndarray] | None = None


def of_run(
  run: RunConfig,
  source: Source,
  num_classes: int | None,
  preprocess: builder.Preprocess,
  image_shape: tuple[int, int, int] | None = None,
  target_scale: tuple[np.ndarray, np.ndarray] | None = None,
) -> Subject:
  """The model of a run.

  Args:
    run: config of the run.
    source: training data.
    num_classes: width of the head; None without classes.
    preprocess: `run.input.pp`, parsed.
    image_shape: (h, w, c) of the training images, if known.
    target_scale: mean and deviation of the targets of a regression.
  """
  return Subject(
    data=run.input.data,
    data_dir=run.input.data_dir,
    cache=run.input.cache,
    batch_size=run.input.batch_size,
    num_classes=num_classes,
    class_names=source.class_names,
    loss=run.loss,
    pixel_statistics=preprocess.pixel_statistics,
    tokenizer=preprocess.tokenize.tokenizer if preprocess.tokenize else None,
    image_shape=image_shape,
    target_scale=target_scale,
  )


def make_evaluator(
  name: str,
  section: Eval,
  model: Subject,
  predict_fn,
  mesh: jax.sharding.Mesh,
) -> Any:
  """The evaluator of one section of `config.evals`.

  Args:
    name: name of the section, for messages.
    section: the section; its defaults are those of `model`.
    model: the model to evaluate.
    predict_fn: of this model, see `step.make_predict_fn`.
    mesh: mesh of the devices to use.

  Raises:
    ConfigError: if the options do not fit the data or the model.
    DatasetNotPreparedError: if the data are absent.
  """
  if section.patch_sizes:
    alone = dataclasses.replace(section, patch_sizes=())
    return PatchSizes(
      {
        size: make_evaluator(
          name,
          alone,
          model,
          functools.partial(predict_fn, patch_size=size),
          mesh,
        )
        for size in section.patch_sizes
      }
    )
  evaluator = evaluators.find(section.type)
  data = section.data or model.data
  if data is None:
    raise ConfigError(
      f"config.evals.{name}.data is missing, and the model does not say what "
      "it was trained on."
    )
  # Class folders get the ids of the model, even if some are missing.
  named = data == model.data or sources.is_named(data)
  own_classes = getattr(evaluator, "own_classes", False)
  open_split = functools.partial(
    sources.open_source,
    data,
    data_dir=section.data_dir or model.data_dir,
    class_names=model.class_names if named and not own_classes else None,
    cache=model.cache,
  )
  # Rounded up to a multiple of the devices: metrics do not depend on it.
  batch_size = section.batch_size or model.batch_size
  batch_size += -batch_size % mesh.size
  filled: dict[str, Any] = {
    "loss": model.loss,
    "tokenizer": model.tokenizer,
    "target_scale": model.target_scale,
  }
  if model.num_classes is not None:
    known = (model.data, model.num_classes, model.class_names)
    filled["classes"] = Classes(*known)
  wanted = inspect.signature(evaluator.__init__).parameters
  lacking = [k for k in evaluators.FILLED if k in wanted and not filled.get(k)]
  if lacking:
    what = lacking[0].replace("_", " ")
    raise ConfigError(
      f"config.evals.{name}: the model has no {what}, which "
      f"type={section.type!r} needs."
    )
  filled = {k: v for k, v in filled.items() if k in wanted}
  try:
    source = open_split(section.split)
    if twice := base.overlap([section.split], open_split):
      raise ValueError(
        f"split {section.split!r} contains {twice} of its examples more than "
        "once, and metrics count each example once. Give parts that do not "
        "overlap."
      )
    preprocess = builder.build(section.pp, class_names=source.class_names)
    return evaluator(
      _explaining(predict_fn, model.image_shape),
      base.EvalData(source, preprocess, batch_size, mesh, open_split),
      **filled,
      **section.options,
    )
  except DatasetNotPreparedError:
    raise
  except ValueError as e:
    raise ConfigError(messages.at(f"config.evals.{name}", e)) from e


def trace(name: str, evaluator, params) -> None:
  """Finds what would end the first evaluation; computes nothing.

  Args:
    name: name of the section, for messages.
    evaluator: from `make_evaluator`.
    params: parameters of the model; shapes will do.

  Raises:
    ConfigError: if the model cannot take what the eval gives it.
  """
  if not hasattr(evaluator, "trace"):
    return
  try:
    evaluator.trace(params)
  except KeyError as e:
    raise ConfigError(
      f"config.evals.{name}: examples have no {e} after the ops of "
      f"config.evals.{name}.pp."
    ) from e
  except (TypeError, ValueError) as e:
    raise ConfigError(messages.at(f"config.evals.{name}", e)) from e


def check_metric(metric: str | None, evals: Mapping[str, Any]) -> None:
  """Raises ConfigError if no evaluator gives `checkpoint.best_metric`.

  Args:
    metric: "EVAL/METRIC", or None.
    evals: the evaluators by name.
  """
  if metric is None:
    return
  name, _, wanted = metric.partition("/")
  evaluator = evals[name if name in evals else name.removesuffix(EMA_SUFFIX)]
  given = getattr(evaluator, "metrics", None)
  if given is None:
    raise ConfigError(
      f"config.checkpoint.best_metric={metric!r}: {type(evaluator).__module__} "
      "does not say which metrics it gives. Add `metrics`, their names, to its "
      "class Evaluator."
    )
  if wanted not in given:
    hint = messages.did_you_mean(wanted, given)
    known = messages.shorten([f"{name}/{x}" for x in given])
    raise ConfigError(
      f"config.checkpoint.best_metric={metric!r}: eval {name!r} does not give "
      f"{wanted!r}.{hint} It gives {known}."
    )


def _explaining(
  predict_fn: Callable, image_shape: tuple[int, int, int] | None
) -> Callable:
  """`predict_fn`, whose error says so if images do not fit the model."""

  def explained(params, batch):
    try:
      return predict_fn(params, batch)
    except Exception as e:  # each layer raises its own kind
      if image_shape is None or "image" not in batch:
        raise
      given = batch["image"].shape[1:]
      if given == image_shape:
        raise
      shapes = ["x".join(map(str, shape)) for shape in (given, image_shape)]
      raise ValueError(
        f"images of {shapes[0]} do not fit the model, which takes {shapes[1]}. "
        "Change the ops of the eval's pp."
      ) from e

  return explained
