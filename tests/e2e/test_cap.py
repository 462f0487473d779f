"""Runs of configs/cap.py: resumed, evaluated, and fine-tuned without labels."""

import json
import shutil

import pytest

from tests.e2e import launch

pytestmark = pytest.mark.slow


def test_a_run_that_is_resumed_is_the_run(tmp_path, cache):
  """Its last checkpoint is gone, as if it had been killed before."""

  def train(workdir):
    launch.run(
      "vitjax.main",
      "--config=configs/cap.py:smoke",
      f"--workdir={workdir}",
      cache=cache,
    ).assert_done()

  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  train(whole)
  lines = map(json.loads, (whole / "metrics.jsonl").read_text().splitlines())
  last = {key: value for line in lines for key, value in line.items()}
  assert last["captions/n_seen"] == 4 and last["captions/n_tokens"] > 4
  assert 1 < last["captions/perplexity"] < 256
  train(stopped)
  shutil.rmtree(stopped / "checkpoints" / "4")
  (stopped / "params.npz").unlink()
  train(stopped)
  launch.assert_same_run(stopped, whole)

  again = launch.run(
    "vitjax.evaluate",
    f"--model={whole}",
    "--evals=captions",
    "--json",
    cache=cache,
  ).assert_done()
  (line,) = (x for x in again.text.splitlines() if x.startswith("{"))
  assert "perplexity" in line
  for name in ("perplexity", "n_tokens"):
    assert str(last[f"captions/{name}"])[:6] in line
