"""Runs of configs/siglip.py: both towers learn, with a batch in parts."""

import json
import shutil

import pytest

from tests.e2e import launch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("loss", ["siglip", "contrastive", "siglip,naflex"])
def test_a_run_that_is_resumed_is_the_run(tmp_path, cache, loss):
  """Its last checkpoint is gone, as if it had been killed before."""

  def train(workdir):
    launch.run(
      "vitjax.main",
      f"--config=configs/siglip.py:smoke,loss={loss}",
      f"--workdir={workdir}",
      cache=cache,
    ).assert_done()

  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  train(whole)
  lines = map(json.loads, (whole / "metrics.jsonl").read_text().splitlines())
  last = {key: value for line in lines for key, value in line.items()}
  assert last["zeroshot/n_seen"] == last["retrieval/n_seen"] == 4
  assert 0 <= last["zeroshot/acc@1"] <= 1
  train(stopped)
  shutil.rmtree(stopped / "checkpoints" / "4")
  (stopped / "params.npz").unlink()
  train(stopped)
  launch.assert_same_run(stopped, whole)
