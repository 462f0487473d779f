"""Runs of configs/cap.py: resumed, evaluated, and fine-tuned without labels."""

import json

import pytest

from tests.e2e import launch

pytestmark = pytest.mark.slow


def test_a_run_that_is_resumed_is_the_run(tmp_path, cache):
  def command(workdir):
    return [
      "vitjax.main",
      "--config=configs/cap.py:smoke",
      f"--workdir={workdir}",
    ]

  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  launch.run(*command(whole), cache=cache).assert_done()
  lines = map(json.loads, (whole / "metrics.jsonl").read_text().splitlines())
  last = {key: value for line in lines for key, value in line.items()}
  assert last["captions/n_seen"] == 4 and last["captions/n_tokens"] > 4
  assert 1 < last["captions/perplexity"] < 256
  launch.assert_resumes(command(stopped), stopped, whole, cache=cache)

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
