"""What evaluators have to know of a model, and how one is made for a section.

Training, `vitjax.evaluate` and the report make their evaluators here, so that
all three see the same images in the same way.
"""

import dataclasses
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax

from vitjax import evaluators
from vitjax.config.schema import ConfigError, Eval, RunConfig
from vitjax.data import sources, tokenizers
from vitjax.data.pp import builder
from vitjax.data.sources.source import DatasetNotPreparedError, Source
from vitjax.evaluators.base import EvalData
from vitjax.evaluators.classes import Classes

# Follows the name of an eval in the metrics of the averaged parameters.
EMA_SUFFIX = "_ema"


@dataclasses.dataclass(frozen=True)
class Subject:
  """What evaluators have to know of a model, and what evals leave out.

  Attributes:
    data: what it was trained on, if known.
    data_dir: where TFDS looks for it.
    cache: whether decoded images are kept, see `sources.open_source`.
    batch_size: of evals that do not say.
    num_classes: of its head; None without classes.
    class_names: of the head, if known.
    loss: of training, by name.
    pixel_statistics: how images are normalised for it, see `pp.builder`.
    tokenizer: of its texts, if it reads texts.
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


def of_run(
  run: RunConfig,
  source: Source,
  num_classes: int | None,
  preprocess: builder.Preprocess,
) -> Subject:
  """The model of a run.

  Args:
    run: its config.
    source: its training data.
    num_classes: of its head; None without classes.
    preprocess: `run.input.pp`, parsed.
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
    tokenizer=preprocess.tokenize and preprocess.tokenize.tokenizer,
  )


def make_evaluator(
  name: str,
  section: Eval,
  model: Subject,
  predict_fn,
  mesh: jax.sharding.Mesh,
):
  """The evaluator of one section of `config.evals`.

  Args:
    name: of the section, for messages.
    section: what it leaves out is taken from `model`.
    model: what is evaluated.
    predict_fn: of it, see `step.make_predict_fn`.
    mesh: whose devices compute.

  Raises:
    ConfigError: if the options do not go with the data or the model.
    DatasetNotPreparedError: if the data is not there.
  """
  evaluator = evaluators.find(section.type)
  data = section.data or model.data
  # Files of classes get the ids of the model, also if some are lacking.
  named = data == model.data or data.startswith(("folder:", "labels:"))
  own_classes = getattr(evaluator, "own_classes", False)
  open_split = functools.partial(
    sources.open_source,
    data,
    data_dir=section.data_dir or model.data_dir,
    class_names=model.class_names if named and not own_classes else None,
    cache=model.cache,
  )
  # Any multiple of the number of devices will do: metrics do not depend on it.
  batch_size = section.batch_size or model.batch_size
  batch_size += -batch_size % mesh.size
  filled = {"loss": model.loss, "tokenizer": model.tokenizer}
  if model.num_classes is not None:
    known = (model.data, model.num_classes, model.class_names)
    filled["classes"] = Classes(*known)
  wanted = inspect.signature(evaluator.__init__).parameters
  lacking = [k for k in evaluators.FILLED if k in wanted and not filled.get(k)]
  if lacking:
    raise ConfigError(
      f"config.evals.{name}: the model has no {lacking[0]}, which "
      f"type={section.type!r} needs."
    )
  filled = {k: v for k, v in filled.items() if k in wanted}
  try:
    source = open_split(section.split)
    preprocess = builder.build(section.pp, class_names=source.class_names)
    return evaluator(
      predict_fn,
      EvalData(source, preprocess, batch_size, mesh, open_split),
      **filled,
      **section.options,
    )
  except DatasetNotPreparedError:
    raise
  except ValueError as e:
    raise ConfigError(f"config.evals.{name}: {e}") from e
