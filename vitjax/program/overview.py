"""Overviews of a run for people: lines for the log, a table of parameters."""

import jax
from absl import logging
from clu import parameter_overview

from vitjax import optim, program
from vitjax.program.labels import describe_classes, describe_labels


def log(parts: program.Program) -> None:
  """Logs the model, the data, the length of the run, and the optimizer."""
  run, source, total_steps = parts.run, parts.source, parts.total_steps
  logging.info(
    "Model: %s, %s parameters.",
    " ".join(f"{k}={v}" for k, v in run.model.items()),
    f"{sum(x.size for x in jax.tree.leaves(parts.abstract.params)):,}",
  )
  logging.info(
    "Training data: %s %s, %s examples, %s. %s steps of %d examples, "
    "%.1f epochs, on %d %s.",
    source.data,
    source.split,
    f"{source.num_examples:,}",
    describe_labels(run, source, parts.num_classes),
    f"{total_steps:,}",
    run.input.batch_size,
    total_steps * run.input.batch_size / source.num_examples,
    jax.device_count(),
    jax.devices()[0].device_kind,
  )
  for line in describe_classes(run, source, parts.num_classes):
    logging.info("%s", line)
  if parts.abstract.statistics and run.accumulation_steps > 1:
    logging.warning(
      "Batch normalisation sees each of the %d parts of a batch alone "
      "(config.accumulation_steps), so the run is not the one without parts: "
      "see docs/training.md#batch-normalisation.",
      run.accumulation_steps,
    )
  if parts.teaching is not None:
    teacher = parts.teaching.teacher
    logging.info("Teacher: %s.", teacher)
    if teacher.has_features and not run.distill.label_weight:
      logging.warning(
        "The head stays random: features alone are learned "
        "(config.distill.label_weight=0). Fine-tune the model afterwards, or "
        "use its features."
      )
  if parts.scale is not None:
    scaled = zip(source.class_names or (), *parts.scale, strict=True)
    for name, mean, deviation in scaled:
      logging.info(
        "Target %s: normalised by its mean %.6g and deviation %.6g in the "
        "training data; metrics and predictions are in its own units.",
        name,
        mean,
        deviation,
      )
  trained = parts.abstract.trained
  for line in optim.describe(trained, **run.optim, model=parts.model):
    logging.info("%s", line)


def table(parts: program.Program) -> str:
  """Name, shape and size of each parameter."""
  return parameter_overview.get_parameter_overview(
    parts.abstract.params, include_stats=False
  )
