"""Two processes compute what one computes."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

from vitjax import checkpoint, metrics

ROOT = pathlib.Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]


def train(workdir, processes, devices):
  """Runs `worker.py` in each process; returns what the screens showed."""
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    port = probe.getsockname()[1]
  children = [
    subprocess.Popen(
      [sys.executable, "-m", "tests.multiprocess.worker"]
      + [str(x) for x in (rank, processes, devices, port, workdir)],
      cwd=ROOT,
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for rank in range(processes)
  ]
  texts = []
  try:
    for child in children:
      texts.append(child.communicate(timeout=500)[0])
  finally:
    for child in children:
      child.kill()
  for child, text in zip(children, texts):
    assert child.returncode == 0, text
    # Every test example, in padded batches that do not divide the set.
    assert text.splitlines()[-1] == f"360 {processes} {processes * devices}"
  return texts


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("one")
  train(workdir, processes=1, devices=4)
  return workdir


def assert_same_training(workdir, expected):
  """Equal but for the order in which float32 sums are taken."""
  rows, wanted = map(metrics.read_metrics, (workdir, expected))
  assert [sorted(row) for row in rows] == [sorted(row) for row in wanted]
  for row, other in zip(rows, wanted):
    assert row["step"] == other["step"]
    for name in {"train/loss", "train/param_norm", "test/loss"} & set(row):
      assert row[name] == pytest.approx(other[name], rel=1e-3), (name, row)
  first, other = rows[0]["train/grad_norm"], wanted[0]["train/grad_norm"]
  assert first == pytest.approx(other, rel=1e-5)


def test_the_same_losses_and_one_writer(tmp_path, one_process):
  texts = train(tmp_path, processes=2, devices=2)
  assert_same_training(tmp_path, one_process)
  assert len(list((tmp_path / "tensorboard").glob("*"))) == 1
  assert not (tmp_path / "metrics.jsonl.old").exists()
  assert "Metrics: " in texts[0] and "Metrics: " not in texts[1]


def test_one_process_goes_on_where_two_were(tmp_path, one_process):
  train(tmp_path, processes=2, devices=2)
  shutil.rmtree(tmp_path / "checkpoints" / "40")
  (text,) = train(tmp_path, processes=1, devices=4)
  assert "Going on after step 30 of 40." in text
  assert_same_training(tmp_path, one_process)
  _, params, _ = checkpoint.load_params(tmp_path / "checkpoints", step=40)
  _, wanted, _ = checkpoint.load_params(one_process / "checkpoints", step=40)
  np.testing.assert_allclose(
    params["head"]["kernel"], wanted["head"]["kernel"], rtol=0.05, atol=1e-3
  )
