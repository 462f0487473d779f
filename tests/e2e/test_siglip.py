"""Runs of configs/siglip.py: both towers learn, with a batch in parts."""

import json

import pytest

from tests.e2e import launch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("loss", ["siglip", "contrastive", "siglip,naflex"])
def test_a_run_that_is_resumed_is_the_run(tmp_path, cache, loss):
  def command(workdir):
    return [
      "vitjax.main",
      f"--config=configs/siglip.py:smoke,loss={loss}",
      f"--workdir={workdir}",
    ]

  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  launch.run(*command(whole), cache=cache).assert_done()
  lines = map(json.loads, (whole / "metrics.jsonl").read_text().splitlines())
  last = {key: value for line in lines for key, value in line.items()}
  assert last["zeroshot/n_seen"] == last["retrieval/n_seen"] == 4
  assert 0 <= last["zeroshot/acc@1"] <= 1
  launch.assert_resumes(command(stopped), stopped, whole, cache=cache)
