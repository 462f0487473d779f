"""The evals of a run: an evaluator for each section of `config.evals`."""

from typing import Any

from absl import logging

from vitjax import program
from vitjax import step as step_lib
from vitjax.data.sources.source import DatasetNotPreparedError
from vitjax.evaluators import subject


def make_evaluators(parts: program.Program) -> dict[str, Any]:
  """Name -> evaluator; without the optional ones whose data are absent.

  Raises:
    ConfigError: if an eval cannot be run, or none gives the best metric.
  """
  predict = step_lib.make_predict_fn(
    parts.model, parts.preprocess.on_device, parts.objective.inputs
  )
  model = subject.of_run(
    parts.run,
    parts.source,
    parts.num_classes,
    parts.preprocess,
    parts.spec["image"].shape[1:],
    parts.scale,
  )
  evals = {}
  for name, section in parts.run.evals.items():
    try:
      evals[name] = subject.make_evaluator(
        name, section, model, predict, parts.mesh
      )
    except DatasetNotPreparedError as e:
      if not section.optional:
        raise
      reason = str(e).splitlines()[0]
      logging.warning("config.evals.%s is left out: %s", name, reason)
    else:
      subject.trace(name, evals[name], parts.placed.weights)
  subject.check_metric(parts.run.checkpoint.best_metric, evals)
  return evals
