"""Early stopping counts evals without an improvement."""

import json

import pytest

from vitjax.checkpoint.patience import Patience
from vitjax.config.schema import Checkpoint
from vitjax.report import runs
from vitjax.run_folder import files, history


def make(mode="max", patience=2, info=None):
  config = Checkpoint(
    best_metric="val/acc@1", best_mode=mode, patience=patience
  )
  return Patience(config, info)


@pytest.mark.parametrize(
  ("mode", "values", "ends"),
  [
    ("max", [0.1, 0.3, 0.2, 0.3], 4),  # as good as the best is no better
    ("max", [0.1, 0.3, 0.2, 0.4, 0.4], None),
    ("min", [0.5, 0.6, 0.4, 0.5, 0.45], 5),
    ("max", [0.5, float("nan"), float("inf")], 3),
    ("min", [float("nan"), float("nan")], 2),
  ],
)
def test_when_it_ends(mode, values, ends):
  patience = make(mode)
  for step, value in enumerate(values, 1):
    # A process that starts again after each eval continues to count.
    saved = json.loads(json.dumps(patience.info, allow_nan=False))
    patience = make(mode, info=saved)
    is_over = patience.after(step, {"val/acc@1": value, "val/loss": 0.0})
    assert is_over == patience.is_over == (step == ends)


def test_other_evals_do_not_count():
  patience = make(patience=1)
  assert not patience.after(1, {"val/acc@1": 0.5})
  assert not patience.after(2, {"other/acc@1": 0.1})
  assert patience.after(3, {"val/acc@1": 0.4})
  assert patience.why(3, 10) == (
    "Ended early after step 3 of 10: val/acc@1 has not improved in 1 evals "
    "(config.checkpoint.patience); its best value is 0.5, at step 1."
  )


def test_without_it_nothing_is_saved():
  patience = Patience(Checkpoint(), None)
  assert patience.info == {}
  assert not patience.after(1, {"val/acc@1": 0.5})


def test_report_and_history_say_that_a_run_ended_early(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 3, "val/acc@1": 0.5}\n')
  (record,) = history.read([tmp_path])
  assert record.early_end is None and not runs.values_section([record]).notes
  files.write_early_end(tmp_path, 3, 10, "Ended early after step 3 of 10: x.")
  (record,) = history.read([tmp_path])
  (note,) = runs.values_section([record]).notes
  assert note == f"{record.name}: Ended early after step 3 of 10: x."
