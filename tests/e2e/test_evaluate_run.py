"""The evals of a run give the same numbers again, on other devices."""

import pytest

from vitjax.evaluate import evaluation
from vitjax.run_folder.reader import read_metrics


@pytest.mark.slow  # CI runs it
def test_a_run_and_its_export_give_what_training_said(straight):
  """The run had one device and batches of 104; here are eight."""
  last = read_metrics(straight)[-1]
  cases = [
    (straight, None, False, "test"),
    (straight, ["test"], True, "test_ema"),
    (straight / "params.npz", {"test": {"split": "test"}}, False, "test"),
  ]
  for model, evals, ema, name in cases:
    [result] = evaluation.evaluate(model, evals, ema=ema, batch_size=72)
    for metric, value in result.metrics.items():
      assert value == pytest.approx(last[f"{name}/{metric}"], rel=1e-5)
    assert result.metrics["n_seen"] == 360
