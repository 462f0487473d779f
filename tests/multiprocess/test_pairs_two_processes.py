"""Two processes compare all images with all texts, as one does."""

import pytest

from tests.multiprocess import processes
from vitjax.run_folder.reader import read_metrics

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]


def test_losses_are_the_plain_ones(cache):
  """Value and gradients, with two devices in each process."""
  commands = [["tests.multiprocess.all_pairs"]] * 2
  with processes.started(*commands, cache=cache, devices=2) as running:
    for process in running:
      end = process.finish().assert_done()
      lines = [
        line.split()
        for line in end.text.splitlines()
        if line.startswith(("contrastive", "siglip"))
      ]
      assert [line[1] for line in lines] == ["4", "4"]
      assert max(float(x) for line in lines for x in line[2:]) < 1e-6


def test_a_run_of_two_processes_is_that_of_one(tmp_path, cache):
  """Texts cross between the processes, and the batch is in two parts."""
  found = []
  for count in (1, 2):
    workdir = tmp_path / str(count)
    command = [
      "vitjax.main",
      "--config=configs/siglip.py:smoke",
      f"--workdir={workdir}",
    ]
    for end in processes.run(command, count, cache=cache):
      end.assert_done()
    found.append(
      [x["train/loss"] for x in read_metrics(workdir) if "train/loss" in x]
    )
  assert len(found[0]) == 4
  assert found[1] == pytest.approx(found[0], rel=1e-5)
