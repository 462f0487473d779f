"""The tiny run of `tests/e2e`, short and with nothing that grows rounding."""

import ml_collections

from tests.e2e import tiny


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
  """The config of the run.

  With the option "fsdp" the weights are split, and with "evaluators" all that
  do without texts take part. With "statistics" the model has batch
  normalisation.
  """
  config = tiny.get_config()
  config.total_steps = 40
  config.class_weights = "balanced"
  config.input.sampling = "sqrt"
  config.optim.mu_dtype = None
  config.evals.test.every_steps = 20
  config.checkpoint.update({"every_steps": 15, "keep_every_steps": 15})
  config.report.every_steps = 1
  if arg == "fsdp":
    config.mesh = {"data": 1, "fsdp": -1}
    config.sharding = [(".*/Dense_[01]/kernel", (None, "fsdp"))]
  if arg == "statistics":
    config.model = {
      "name": "regnet",
      "depths": (1,),
      "widths": (8,),
      "group_width": 4,
      "stem_width": 8,
    }
  if arg == "evaluators":
    features = {
      "split": "test",
      "train_split": "train",
      "pp": "value_range(-1, 1)",
    }
    config.evals = {
      "test": {
        **config.evals.test,
        "calibration": True,
        "metrics": ("macro_f1", "recall", "confusion", "auroc", "ap"),
      },
      "few": {**features, "type": "fewshot", "shots": (1, 5)},
      "near": {**features, "type": "knn"},
      "probe": {**features, "type": "linear_probe", "l2": (0.01, 1.0)},
    }
    config.checkpoint.best_metric = None
  return config
